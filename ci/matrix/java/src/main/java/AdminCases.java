import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What Java's Admin does. */
final class AdminCases {
    private final Client client;

    AdminCases(Client client) {
        this.client = client;
    }

    private String config(String topic, String name) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config found = client.admin.describeConfigs(List.of(resource)).all().get().get(resource);
        return found.get(name).value();
    }

    void createTopic() throws Exception {
        String topic = client.topic("create", 5, Map.of("retention.ms", "3600000"));
        Client.expect(config(topic, "retention.ms"), "3600000", "retention.ms");
    }

    void createPartitions() throws Exception {
        String topic = client.topic("partitions", 2, Map.of());
        client.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(7))).all().get();
        Client.until(() -> client.partitions(topic) == 7, "not seven partitions");
    }

    void configs() throws Exception {
        String topic = client.topic("configs", 1, Map.of());
        Client.expect(config(topic, "cleanup.policy"), "delete", "cleanup.policy");
        var change = new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET);
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        client.admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
        Client.until(() -> config(topic, "retention.ms").equals("7200000"), "the change is not seen");
    }

    private boolean isListed(String group) throws Exception {
        return client.admin.listGroups().all().get().stream().anyMatch(one -> one.groupId().equals(group));
    }

    void groups(GroupCases groups) throws Exception {
        String topic = client.topic("groups", 6, Map.of());
        String group = client.name("groups");
        var member = groups.member(topic, group, Map.of());
        Client.until(() -> member.partitions.size() == 6, "the member has no partitions");
        Client.expect(isListed(group), true, "the group is listed");
        var found = client.admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        Client.expect(found.groupState().toString() + found.members().size(), "Stable1", "state and members");
        Client.expect(found.members().iterator().next().assignment().topicPartitions().size(), 6, "assigned partitions");
        member.stop();
    }

    private long offset(String topic, OffsetSpec spec) throws Exception {
        var partition = new TopicPartition(topic, 0);
        return client.admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get().offset();
    }

    void listOffsets() throws Exception {
        String topic = client.written("offsets", 50);
        Client.expect(offset(topic, OffsetSpec.earliest()), 0L, "earliest");
        Client.expect(offset(topic, OffsetSpec.latest()), 50L, "latest");
        Client.expect(offset(topic, OffsetSpec.maxTimestamp()) >= 0, true, "an offset of the largest timestamp");
    }

    void deleteRecords() throws Exception {
        String topic = client.written("records", 50);
        var partition = new TopicPartition(topic, 0);
        var deleted = client.admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(30)));
        Client.expect(deleted.lowWatermarks().get(partition).get().lowWatermark(), 30L, "low watermark");
        Client.expect(client.everything(topic, 1, 20).get(0).offset(), 30L, "first offset");
    }

    void deleteGroup() throws Exception {
        String topic = client.written("delete-group", 10);
        String group = client.name("delete-group");
        var offsets = Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(5, "a note"));
        client.admin.alterConsumerGroupOffsets(group, offsets).all().get();
        Client.expect(isListed(group), true, "the group is listed");
        client.admin.deleteConsumerGroups(List.of(group)).all().get();
        Client.expect(isListed(group), false, "the deleted group is listed");
    }

    void deleteTopic() throws Exception {
        String topic = client.topic("delete-topic", 1, Map.of());
        client.admin.deleteTopics(List.of(topic)).all().get();
        Client.until(() -> !client.admin.listTopics().names().get().contains(topic), "the topic is still there");
    }

    void cluster() throws Exception {
        var found = client.admin.describeCluster();
        Client.expect(found.clusterId().get().isEmpty(), false, "an empty cluster id");
        Client.expect(found.nodes().get().contains(found.controller().get()), true, "the controller is one of the nodes");
    }
}

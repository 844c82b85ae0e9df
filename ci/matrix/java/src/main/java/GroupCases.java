import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Consumer groups. */
final class GroupCases {
    private static final int PARTITIONS = 6;

    private final Client client;

    GroupCases(Client client) {
        this.client = client;
    }

    /** A member in a thread of its own. */
    static final class Member {
        final ConcurrentLinkedQueue<String> values = new ConcurrentLinkedQueue<>();
        final Set<TopicPartition> revoked = ConcurrentHashMap.newKeySet();
        volatile Set<TopicPartition> partitions = Set.of();
        private volatile boolean stopping;
        private volatile Exception error;
        private final Thread thread;

        Member(Client client, String topic, Map<String, String> settings) {
            thread = new Thread(() -> live(client, topic, settings));
            thread.start();
        }

        private void live(Client client, String topic, Map<String, String> settings) {
            try (var consumer = client.consumer(settings)) {
                consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    @Override
                    public void onPartitionsRevoked(Collection<TopicPartition> lost) {
                        revoked.addAll(lost);
                    }

                    @Override
                    public void onPartitionsAssigned(Collection<TopicPartition> gained) {
                        // Seen in the assignment.
                    }
                });
                while (!stopping) {
                    var records = consumer.poll(Duration.ofMillis(100));
                    records.forEach(record -> values.add(Client.text(record)));
                    if (!records.isEmpty()) {
                        consumer.commitSync();
                    }
                    partitions = new HashSet<>(consumer.assignment());
                }
            } catch (Exception failed) {
                error = failed;
            }
        }

        void stop() throws Exception {
            stopping = true;
            thread.join(Client.PATIENCE_SECONDS * 1000L);
            Client.expect(thread.isAlive(), false, "a member that was stopped lives");
            healthy();
        }

        void healthy() throws Exception {
            if (error != null) {
                throw error;
            }
        }
    }

    private static boolean share(List<Member> members, int each) throws Exception {
        var all = new HashSet<TopicPartition>();
        boolean even = true;
        for (Member member : members) {
            member.healthy();
            even &= member.partitions.size() == each;
            all.addAll(member.partitions);
        }
        return even && all.size() == PARTITIONS;
    }

    Member member(String topic, String group, Map<String, String> more) {
        var settings = new HashMap<>(more);
        settings.put("group.id", group);
        return new Member(client, topic, settings);
    }

    void three(String protocol) throws Exception {
        String topic = client.topic("three", PARTITIONS, Map.of());
        String group = client.name("three");
        var members = new ArrayList<Member>();
        for (int number = 0; number < 3; number++) {
            members.add(member(topic, group, Map.of("group.protocol", protocol)));
        }
        Client.until(() -> share(members, 2), "three members do not share the partitions");
        write(topic, "a");
        Client.until(() -> read(members).size() >= 60, "60 records were not read");
        members.get(0).stop();
        Client.until(() -> share(members.subList(1, 3), 3), "the two that stayed did not take over");
        write(topic, "b");
        Client.until(() -> read(members).size() >= 120, "120 records were not read");
        Client.expect(read(members), Stream.of("a", "b").flatMap(GroupCases::values).sorted().toList(), "what was read");
        members.get(1).stop();
        members.get(2).stop();
    }

    private static Stream<String> values(String prefix) {
        return IntStream.range(0, 60).mapToObj(number -> prefix + number);
    }

    private void write(String topic, String prefix) throws Exception {
        client.write(Map.of(), IntStream.range(0, 60)
            .mapToObj(number -> new ProducerRecord<byte[], byte[]>(topic, number % PARTITIONS, null, Client.bytes(prefix + number)))
            .toList());
    }

    private static List<String> read(List<Member> members) {
        return members.stream().flatMap(member -> member.values.stream()).sorted().toList();
    }

    void resume() throws Exception {
        String topic = client.written("resume", 20);
        String group = client.name("resume");
        for (var expected : List.of(Client.values(20).subList(0, 10), Client.values(20).subList(10, 20))) {
            var found = new ArrayList<String>();
            try (var consumer = client.consumer(Map.of("group.id", group, "max.poll.records", "10"))) {
                consumer.subscribe(List.of(topic));
                Client.until(() -> {
                    consumer.poll(Duration.ofMillis(100)).forEach(record -> found.add(Client.text(record)));
                    return found.size() >= 10;
                }, "ten records were not read");
                consumer.commitSync();
            }
            Client.expect(found, expected, "values");
        }
    }

    void staticMember() throws Exception {
        String topic = client.topic("static", PARTITIONS, Map.of());
        String group = client.name("static");
        var stays = member(topic, group, Map.of("group.instance.id", "one"));
        var restarts = member(topic, group, Map.of("group.instance.id", "two"));
        Client.until(() -> share(List.of(stays, restarts), 3), "two members do not share the partitions");
        var had = restarts.partitions;
        stays.revoked.clear();
        restarts.stop();
        var again = member(topic, group, Map.of("group.instance.id", "two"));
        Client.until(() -> share(List.of(stays, again), 3), "the member that came back has no share");
        Client.expect(again.partitions, had, "the partitions of the member that came back");
        Client.expect(stays.revoked, Set.of(), "what the other member lost meanwhile");
        again.stop();
        stays.stop();
    }
}

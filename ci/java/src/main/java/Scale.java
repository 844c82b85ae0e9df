import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.CreateTopicsRequestData;
import org.apache.kafka.common.message.CreateTopicsRequestData.CreatableTopic;
import org.apache.kafka.common.message.CreateTopicsRequestData.CreatableTopicCollection;
import org.apache.kafka.common.message.CreateTopicsResponseData;
import org.apache.kafka.common.message.DeleteGroupsRequestData;
import org.apache.kafka.common.message.DeleteGroupsResponseData;
import org.apache.kafka.common.message.DeleteTopicsRequestData;
import org.apache.kafka.common.message.DeleteTopicsResponseData;
import org.apache.kafka.common.message.DescribeGroupsRequestData;
import org.apache.kafka.common.message.DescribeGroupsResponseData;
import org.apache.kafka.common.message.FindCoordinatorRequestData;
import org.apache.kafka.common.message.FindCoordinatorResponseData;
import org.apache.kafka.common.message.JoinGroupRequestData;
import org.apache.kafka.common.message.JoinGroupRequestData.JoinGroupRequestProtocol;
import org.apache.kafka.common.message.JoinGroupRequestData.JoinGroupRequestProtocolCollection;
import org.apache.kafka.common.message.JoinGroupResponseData;
import org.apache.kafka.common.message.ListGroupsRequestData;
import org.apache.kafka.common.message.ListGroupsResponseData;
import org.apache.kafka.common.message.ListOffsetsRequestData;
import org.apache.kafka.common.message.ListOffsetsRequestData.ListOffsetsPartition;
import org.apache.kafka.common.message.ListOffsetsRequestData.ListOffsetsTopic;
import org.apache.kafka.common.message.ListOffsetsResponseData;
import org.apache.kafka.common.message.MetadataRequestData;
import org.apache.kafka.common.message.MetadataRequestData.MetadataRequestTopic;
import org.apache.kafka.common.message.MetadataResponseData;
import org.apache.kafka.common.message.OffsetCommitRequestData;
import org.apache.kafka.common.message.OffsetCommitRequestData.OffsetCommitRequestPartition;
import org.apache.kafka.common.message.OffsetCommitRequestData.OffsetCommitRequestTopic;
import org.apache.kafka.common.message.OffsetCommitResponseData;
import org.apache.kafka.common.message.OffsetFetchRequestData;
import org.apache.kafka.common.message.OffsetFetchRequestData.OffsetFetchRequestGroup;
import org.apache.kafka.common.message.OffsetFetchResponseData;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.message.SyncGroupRequestData;
import org.apache.kafka.common.message.SyncGroupRequestData.SyncGroupRequestAssignment;
import org.apache.kafka.common.message.SyncGroupResponseData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.utils.Utils;

/**
 * What many topics and many groups cost on several brokers of one node each: prints `side figure value` for the time to
 * create them, the broker's resident memory before and after, and the time to answer about all of them and about one.
 * Requests are written and answers read by Kafka's own message classes; a time ends with the last byte of the answer,
 * which is decoded after it. The brokers are asked in turn, so that what else the machine does meets all alike. Every
 * partition and every group that was made must be in the answers. Arguments: topics, partitions of each, groups, times
 * that each question is asked, then NAME=HOST:PORT,pid=PID for each broker.
 */
public final class Scale {
    private static final int TOPICS_PER_REQUEST = 50;
    private static final int MEMBERS_AT_ONCE = 100;
    private static final int WARM_TOPICS = 100;
    private static final int WARM_GROUPS = 100;
    /** The longest that Kafka allows by default: no member needs a heartbeat. */
    private static final int SESSION_TIMEOUT_MS = 1_800_000;
    private static final long PATIENCE_NANOS = TimeUnit.MINUTES.toNanos(3);
    private static final List<Errors> NOT_YET =
        List.of(Errors.COORDINATOR_NOT_AVAILABLE, Errors.COORDINATOR_LOAD_IN_PROGRESS, Errors.NOT_COORDINATOR);

    private final int topics;
    private final int partitions;
    private final int groups;
    private final int asks;
    private final List<Side> sides = new ArrayList<>();

    /** A broker. */
    private record Side(String name, InetSocketAddress address, String pid, Wire wire) {}

    /** A question, and what must be true of its answer. */
    private record Question(String figure, ApiKeys api, int version, ApiMessage body, Consumer<ApiMessage> check) {}

    private Scale(String[] arguments) throws IOException {
        topics = Integer.parseInt(arguments[0]);
        partitions = Integer.parseInt(arguments[1]);
        groups = Integer.parseInt(arguments[2]);
        asks = Integer.parseInt(arguments[3]);
        for (String side : Arrays.copyOfRange(arguments, 4, arguments.length)) {
            String[] parts = side.split("[=,:]");
            var address = new InetSocketAddress(parts[1], Integer.parseInt(parts[2]));
            sides.add(new Side(parts[0], address, parts[4], new Wire(address)));
        }
    }

    public static void main(String[] arguments) throws Exception {
        new Scale(arguments).run();
    }

    private void run() throws Exception {
        for (Side side : sides) {
            warm(side);
            tell(side, "resident before, MiB", residentMib(side));
            long began = System.nanoTime();
            createTopics(side.wire, "scale-topic-", topics);
            tell(side, "topics created, s", seconds(began));
            tell(side, "resident with topics, MiB", residentMib(side));
            began = System.nanoTime();
            commitOffsets(side.wire, "scale-group-", groups);
            tell(side, "offsets of groups committed, s", seconds(began));
            joinMembers(side);
            tell(side, "resident with groups, MiB", residentMib(side));
        }
        for (Question question : questions()) {
            ask(question);
        }
    }

    /** Each question first as often untimed: code is compiled. */
    private void ask(Question question) throws IOException {
        var took = new double[sides.size()][asks];
        for (int time = -asks; time < asks; time++) {
            for (int number = 0; number < sides.size(); number++) {
                Wire wire = sides.get(number).wire;
                ByteBuffer frame = wire.frame(question.api, question.version, question.body);
                long began = System.nanoTime();
                ByteBuffer answer = wire.exchange(frame);
                if (time >= 0) {
                    took[number][time] = (System.nanoTime() - began) / 1e6;
                }
                question.check.accept(wire.read(question.api, question.version, answer));
            }
        }
        for (int number = 0; number < sides.size(); number++) {
            Arrays.sort(took[number]);
            tell(sides.get(number), question.figure, took[number][asks / 2]);
        }
    }

    private List<Question> questions() {
        List<String> all = IntStream.range(0, groups).mapToObj(number -> "scale-group-" + number).toList();
        var one = List.of(all.get(groups / 2));
        return List.of(
            new Question("Metadata of all topics, ms", ApiKeys.METADATA, 12, metadata(null), this::checkMetadata),
            new Question("Metadata of one topic, ms", ApiKeys.METADATA, 12, metadata("scale-topic-" + topics / 2),
                answer -> expect(1, ((MetadataResponseData) answer).topics().size(), "topics")),
            new Question("ListGroups, ms", ApiKeys.LIST_GROUPS, 4, new ListGroupsRequestData(), this::checkList),
            new Question("DescribeGroups of all, ms", ApiKeys.DESCRIBE_GROUPS, 5,
                new DescribeGroupsRequestData().setGroups(all), answer -> checkDescribed(answer, groups)),
            new Question("DescribeGroups of one, ms", ApiKeys.DESCRIBE_GROUPS, 5,
                new DescribeGroupsRequestData().setGroups(one), answer -> checkDescribed(answer, 1)),
            new Question("OffsetFetch of all, ms", ApiKeys.OFFSET_FETCH, 8, offsetFetch(all),
                answer -> checkOffsets(answer, groups)),
            new Question("OffsetFetch of one, ms", ApiKeys.OFFSET_FETCH, 8, offsetFetch(one),
                answer -> checkOffsets(answer, 1)));
    }

    private static MetadataRequestData metadata(String topic) {
        var named = topic == null ? null : List.of(new MetadataRequestTopic().setName(topic));
        return new MetadataRequestData().setTopics(named).setAllowAutoTopicCreation(false);
    }

    private static OffsetFetchRequestData offsetFetch(List<String> groups) {
        return new OffsetFetchRequestData().setGroups(
            groups.stream().map(group -> new OffsetFetchRequestGroup().setGroupId(group).setTopics(null)).toList());
    }

    private void checkMetadata(ApiMessage answer) {
        var data = (MetadataResponseData) answer;
        expect(1, data.brokers().size(), "nodes");
        int node = data.brokers().iterator().next().nodeId();
        var made = data.topics().stream().filter(topic -> topic.name().startsWith("scale-topic-")).toList();
        expect(topics, made.size(), "topics");
        for (var topic : made) {
            long led = topic.partitions().stream().filter(one -> one.errorCode() == 0 && one.leaderId() == node).count();
            expect(partitions, led, "partitions with a leader of " + topic.name());
        }
    }

    private void checkList(ApiMessage answer) {
        var listed = ((ListGroupsResponseData) answer).groups();
        expect(groups, listed.stream().filter(group -> group.groupState().equals("Stable")).count(), "stable groups listed");
    }

    private static void checkDescribed(ApiMessage answer, int count) {
        var described = ((DescribeGroupsResponseData) answer).groups();
        var whole = described.stream().filter(group -> group.groupState().equals("Stable") && group.members().size() == 1);
        expect(count, whole.count(), "groups with a member");
    }

    private void checkOffsets(ApiMessage answer, int count) {
        var fetched = ((OffsetFetchResponseData) answer).groups();
        expect(count, fetched.size(), "groups with offsets");
        for (var group : fetched) {
            long offset = offsetOf(group.groupId());
            long same = group.topics().stream().flatMap(topic -> topic.partitions().stream())
                .filter(one -> one.committedOffset() == offset).count();
            expect(partitions, same, "offsets of " + group.groupId());
        }
    }

    /** Makes and unmakes some topics and groups: code is compiled, and Kafka has its topic of offsets. */
    private void warm(Side side) throws IOException {
        createTopics(side.wire, "warm-topic-", WARM_TOPICS);
        commitOffsets(side.wire, "warm-group-", WARM_GROUPS);
        var names = IntStream.range(0, WARM_GROUPS).mapToObj(number -> "warm-group-" + number).toList();
        var groupless = (DeleteGroupsResponseData) side.wire.ask(ApiKeys.DELETE_GROUPS, 2,
            new DeleteGroupsRequestData().setGroupsNames(names));
        groupless.results().forEach(one -> refuse(one.errorCode(), one.groupId()));
        var topicNames = IntStream.range(0, WARM_TOPICS).mapToObj(number -> "warm-topic-" + number).toList();
        var topicless = (DeleteTopicsResponseData) side.wire.ask(ApiKeys.DELETE_TOPICS, 5,
            new DeleteTopicsRequestData().setTopicNames(topicNames).setTimeoutMs(60_000));
        topicless.responses().forEach(one -> refuse(one.errorCode(), one.name()));
    }

    /** Until every partition answers where its log ends. */
    private void createTopics(Wire wire, String prefix, int count) throws IOException {
        for (int from = 0; from < count; from += TOPICS_PER_REQUEST) {
            var wanted = new CreatableTopicCollection();
            for (int number = from; number < Math.min(count, from + TOPICS_PER_REQUEST); number++) {
                wanted.add(new CreatableTopic().setName(prefix + number).setNumPartitions(partitions)
                    .setReplicationFactor((short) 1));
            }
            var made = (CreateTopicsResponseData) wire.ask(ApiKeys.CREATE_TOPICS, 7,
                new CreateTopicsRequestData().setTopics(wanted).setTimeoutMs(60_000));
            made.topics().forEach(one -> refuse(one.errorCode(), one.name() + ": " + one.errorMessage()));
        }
        // The last one first: a broker that is busy is not asked about all of them over and over.
        await(wire, List.of(prefix + (count - 1)));
        await(wire, IntStream.range(0, count).mapToObj(number -> prefix + number).toList());
    }

    private void await(Wire wire, List<String> names) throws IOException {
        List<ListOffsetsTopic> ends = new ArrayList<>();
        for (String name : names) {
            ends.add(new ListOffsetsTopic().setName(name).setPartitions(IntStream.range(0, partitions)
                .mapToObj(one -> new ListOffsetsPartition().setPartitionIndex(one).setTimestamp(-1)).toList()));
        }
        var asked = new ListOffsetsRequestData().setReplicaId(-1).setTopics(ends);
        until("partitions that have a log", () -> {
            var found = (ListOffsetsResponseData) wire.ask(ApiKeys.LIST_OFFSETS, 7, asked);
            return found.topics().stream().flatMap(topic -> topic.partitions().stream())
                .filter(one -> one.errorCode() == 0).count() == (long) names.size() * partitions;
        });
    }

    /** Each group commits an offset for every partition of a topic, one request after another. */
    private void commitOffsets(Wire wire, String prefix, int count) throws IOException {
        var names = IntStream.range(0, count).mapToObj(number -> prefix + number).toList();
        until("coordinators", () -> {
            var found = (FindCoordinatorResponseData) wire.ask(ApiKeys.FIND_COORDINATOR, 4,
                new FindCoordinatorRequestData().setKeyType((byte) 0).setCoordinatorKeys(names));
            return found.coordinators().stream().allMatch(one -> one.errorCode() == 0);
        });
        for (int number = 0; number < count; number++) {
            long offset = offsetOf(names.get(number));
            var topic = new OffsetCommitRequestTopic().setName(topicOf(prefix, number)).setPartitions(
                IntStream.range(0, partitions).mapToObj(one -> new OffsetCommitRequestPartition().setPartitionIndex(one)
                    .setCommittedOffset(offset).setCommittedMetadata("")).toList());
            var commit = new OffsetCommitRequestData().setGroupId(names.get(number)).setMemberId("")
                .setGenerationIdOrMemberEpoch(-1).setTopics(List.of(topic));
            until("commits of " + names.get(number), () -> {
                var done = (OffsetCommitResponseData) wire.ask(ApiKeys.OFFSET_COMMIT, 8, commit);
                var errors = done.topics().stream().flatMap(one -> one.partitions().stream())
                    .map(one -> Errors.forCode(one.errorCode())).filter(error -> error != Errors.NONE).toList();
                if (!NOT_YET.containsAll(errors)) {
                    throw new IllegalStateException(commit.groupId() + ": " + errors);
                }
                return errors.isEmpty();
            });
        }
    }

    private String topicOf(String prefix, int group) {
        return prefix.replace("group", "topic") + group % (prefix.startsWith("warm") ? WARM_TOPICS : topics);
    }

    private static long offsetOf(String group) {
        return 1_000 + group.hashCode() % 1_000;
    }

    /** Each group gets a member that has all partitions of a topic; untimed, since brokers wait for further members. */
    private void joinMembers(Side side) throws Exception {
        var pool = Executors.newFixedThreadPool(MEMBERS_AT_ONCE);
        try {
            List<Callable<Void>> joins = new ArrayList<>();
            for (int number = 0; number < groups; number++) {
                int group = number;
                joins.add(() -> {
                    try (Wire wire = new Wire(side.address)) {
                        join(wire, "scale-group-" + group, topicOf("scale-group-", group));
                    }
                    return null;
                });
            }
            for (var join : pool.invokeAll(joins)) {
                join.get();
            }
        } finally {
            pool.shutdownNow();
        }
    }

    private void join(Wire wire, String group, String topic) throws IOException {
        var protocols = new JoinGroupRequestProtocolCollection();
        protocols.add(new JoinGroupRequestProtocol().setName("range")
            .setMetadata(Utils.toArray(ConsumerProtocol.serializeSubscription(new Subscription(List.of(topic))))));
        var request = new JoinGroupRequestData().setGroupId(group).setMemberId("").setProtocolType("consumer")
            .setSessionTimeoutMs(SESSION_TIMEOUT_MS).setRebalanceTimeoutMs(60_000).setProtocols(protocols);
        var named = (JoinGroupResponseData) wire.ask(ApiKeys.JOIN_GROUP, 9, request);
        if (Errors.forCode(named.errorCode()) != Errors.MEMBER_ID_REQUIRED) {
            throw new IllegalStateException(group + ": " + Errors.forCode(named.errorCode()) + " for a member without id");
        }
        var joined = (JoinGroupResponseData) wire.ask(ApiKeys.JOIN_GROUP, 9, request.setMemberId(named.memberId()));
        refuse(joined.errorCode(), group);
        var given = IntStream.range(0, partitions).mapToObj(one -> new TopicPartition(topic, one)).toList();
        var assignment = Utils.toArray(ConsumerProtocol.serializeAssignment(new Assignment(given)));
        var synced = (SyncGroupResponseData) wire.ask(ApiKeys.SYNC_GROUP, 5, new SyncGroupRequestData().setGroupId(group)
            .setMemberId(joined.memberId()).setGenerationId(joined.generationId()).setProtocolType("consumer")
            .setProtocolName("range").setAssignments(List.of(new SyncGroupRequestAssignment()
                .setMemberId(joined.memberId()).setAssignment(assignment))));
        refuse(synced.errorCode(), group);
        if (!Arrays.equals(synced.assignment(), assignment)) {
            throw new IllegalStateException(group + " got another assignment");
        }
    }

    private static void until(String what, Callable<Boolean> holds) throws IOException {
        long limit = System.nanoTime() + PATIENCE_NANOS;
        try {
            while (!holds.call()) {
                if (System.nanoTime() > limit) {
                    throw new IllegalStateException("no " + what + " within the time allowed");
                }
                Thread.sleep(20);
            }
        } catch (IOException | RuntimeException failed) {
            throw failed;
        } catch (Exception failed) {
            throw new IllegalStateException(failed);
        }
    }

    private static void refuse(short error, String what) {
        if (error != 0) {
            throw new IllegalStateException(what + ": " + Errors.forCode(error));
        }
    }

    private static void expect(long wanted, long found, String what) {
        if (wanted != found) {
            throw new IllegalStateException(what + ": " + found + " instead of " + wanted);
        }
    }

    private static double seconds(long began) {
        return (System.nanoTime() - began) / 1e9;
    }

    private static double residentMib(Side side) throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc", side.pid, "status"))) {
            if (line.startsWith("VmRSS:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
            }
        }
        throw new IOException("no resident size of process " + side.pid);
    }

    private static void tell(Side side, String figure, double value) {
        System.out.println(side.name + "\t" + figure + "\t" + value);
    }

    /** One connection; one request at a time. */
    private static final class Wire implements AutoCloseable {
        private final SocketChannel channel;
        private ByteBuffer room = ByteBuffer.allocateDirect(1 << 20);
        private int asked;

        private Wire(InetSocketAddress address) throws IOException {
            channel = SocketChannel.open(address);
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
        }

        private ByteBuffer frame(ApiKeys api, int version, ApiMessage body) {
            asked++;
            var cache = new ObjectSerializationCache();
            short headerVersion = api.requestHeaderVersion((short) version);
            var header = new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion((short) version)
                .setClientId("scale").setCorrelationId(asked);
            int size = header.size(cache, headerVersion) + body.size(cache, (short) version);
            var frame = ByteBuffer.allocateDirect(Integer.BYTES + size);
            var out = new ByteBufferAccessor(frame);
            out.writeInt(size);
            header.write(out, cache, headerVersion);
            body.write(out, cache, (short) version);
            return frame.flip();
        }

        private ByteBuffer exchange(ByteBuffer frame) throws IOException {
            while (frame.hasRemaining()) {
                channel.write(frame);
            }
            int size = take(Integer.BYTES).getInt();
            return take(size);
        }

        /** The next bytes; valid until the next call. */
        private ByteBuffer take(int size) throws IOException {
            if (room.capacity() < size) {
                room = ByteBuffer.allocateDirect(size);
            }
            room.clear().limit(size);
            while (room.hasRemaining()) {
                if (channel.read(room) < 0) {
                    throw new EOFException("the broker closed the connection");
                }
            }
            return room.flip();
        }

        private ApiMessage read(ApiKeys api, int version, ByteBuffer answer) {
            var in = new ByteBufferAccessor(answer);
            var header = new ResponseHeaderData(in, api.responseHeaderVersion((short) version));
            expect(asked, header.correlationId(), "correlation id");
            ApiMessage body = ApiMessageType.fromApiKey(api.id).newResponse();
            body.read(in, (short) version);
            return body;
        }

        private ApiMessage ask(ApiKeys api, int version, ApiMessage body) throws IOException {
            return read(api, version, exchange(frame(api, version, body)));
        }

        @Override
        public void close() throws IOException {
            channel.close();
        }
    }
}

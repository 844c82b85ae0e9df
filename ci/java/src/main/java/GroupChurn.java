import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Members that join and leave one group at random while numbered records are written; each stays for up to four seconds,
 * some go without a word to the group. Then all members stay: every record must have been read at least once, every
 * member have a partition, and the group be stable. Fails if that takes longer than
 * {@link #PATIENCE}. Arguments: bootstrap servers, group protocol, members, seconds, topic.
 */
public final class GroupChurn {
    private static final Duration PATIENCE = Duration.ofMinutes(3);
    private static final Duration POLL = Duration.ofMillis(100);
    private static final int LONGEST_STAY_MS = 4_000;
    private static final int RECORDS_PER_SECOND = 500;
    private static final int SILENT_LEAVES_PERCENT = 5;

    private final String bootstrap;
    private final String protocol;
    private final String topic;
    private final int members;
    private final long churnEnd;
    private final AtomicIntegerArray reads;
    private final AtomicLong written = new AtomicLong();
    private final AtomicLong joins = new AtomicLong();
    private final AtomicLong failedCommits = new AtomicLong();
    private final AtomicLong errors = new AtomicLong();
    /** Which members of the last round have a partition. */
    private final AtomicIntegerArray settled;
    private volatile boolean done;

    private GroupChurn(String[] arguments) {
        bootstrap = arguments[0];
        protocol = arguments[1];
        members = Integer.parseInt(arguments[2]);
        int seconds = Integer.parseInt(arguments[3]);
        topic = arguments[4];
        churnEnd = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        reads = new AtomicIntegerArray(seconds * RECORDS_PER_SECOND);
        settled = new AtomicIntegerArray(members);
    }

    public static void main(String[] arguments) throws Exception {
        System.exit(new GroupChurn(arguments).run() ? 0 : 1);
    }

    private boolean run() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            return run(admin);
        }
    }

    private boolean run(Admin admin) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, members, (short) 1))).all().get();
        List<Thread> threads = new ArrayList<>();
        for (int member = 0; member < members; member++) {
            int number = member;
            threads.add(new Thread(() -> member(number)));
        }
        threads.forEach(Thread::start);
        produce();
        long limit = System.nanoTime() + PATIENCE.toNanos();
        String state = "";
        while ((missing() + unsettled() > 0 || !state.equals("Stable")) && System.nanoTime() < limit) {
            Thread.sleep(200);
            state = state(admin);
        }
        long settledAfter = TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - churnEnd);
        done = true;
        for (Thread thread : threads) {
            thread.join(PATIENCE.toMillis());
        }
        long stuck = threads.stream().filter(Thread::isAlive).count();
        long total = 0;
        for (int id = 0; id < written.get(); id++) {
            total += reads.get(id);
        }
        System.out.printf(
            "churn: protocol %s, %d members, %d joins, %d records, %d read more than once, %d never; %d s after the last "
                + "left the group is %s, %d members without assignment, %d stuck; %d commits refused, %d errors%n",
            protocol, members, joins.get(), written.get(), total - (written.get() - missing()), missing(), settledAfter,
            state, unsettled(), stuck, failedCommits.get(), errors.get());
        return missing() == 0 && unsettled() == 0 && stuck == 0 && state.equals("Stable");
    }

    private String state(Admin admin) throws Exception {
        for (GroupListing group : admin.listGroups().all().get()) {
            if (group.groupId().equals(group())) {
                return group.groupState().map(GroupState::toString).orElse("");
            }
        }
        return "";
    }

    private String group() {
        return "churn-of-" + topic;
    }

    private long missing() {
        long missing = 0;
        for (int id = 0; id < written.get(); id++) {
            missing += reads.get(id) == 0 ? 1 : 0;
        }
        return missing;
    }

    private long unsettled() {
        long unsettled = 0;
        for (int member = 0; member < members; member++) {
            unsettled += settled.get(member) == 0 ? 1 : 0;
        }
        return unsettled;
    }

    /** Numbered records at an even rate; what the broker did not take is tried again by the client. */
    private void produce() throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("delivery.timeout.ms", "600000");
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(properties, bytes, bytes)) {
            for (int id = 0; id < reads.length(); id++) {
                byte[] value = ByteBuffer.allocate(Integer.BYTES).putInt(id).array();
                producer.send(new ProducerRecord<>(topic, id % members, null, value), (sent, error) -> {
                    if (error != null) {
                        System.out.printf("churn: a record was not written: %s%n", error);
                        System.exit(1);
                    }
                });
                written.incrementAndGet();
                if (id % (RECORDS_PER_SECOND / 50) == 0) {
                    Thread.sleep(20);
                }
            }
        }
    }

    private void member(int number) {
        SplittableRandom random = new SplittableRandom(number);
        while (!done) {
            long now = System.nanoTime();
            boolean last = now >= churnEnd;
            long until = last ? Long.MAX_VALUE
                : Math.min(churnEnd, now + TimeUnit.MILLISECONDS.toNanos(random.nextInt(LONGEST_STAY_MS)));
            boolean silently = !last && random.nextInt(100) < SILENT_LEAVES_PERCENT;
            try {
                stay(number, until, silently);
            } catch (KafkaException error) {
                // The member starts again, as a process would.
                errors.incrementAndGet();
                System.out.printf("churn: member %d: %s%n", number, error);
            }
        }
    }

    private void stay(int number, long until, boolean silently) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("group.id", group());
        properties.put("group.protocol", protocol);
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("max.poll.interval.ms", "20000");
        if (protocol.equals("classic")) {
            properties.put("session.timeout.ms", "10000");
            properties.put("partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        }
        var bytes = new ByteArrayDeserializer();
        var consumer = new KafkaConsumer<>(properties, bytes, bytes);
        try {
            joins.incrementAndGet();
            consumer.subscribe(List.of(topic));
            boolean last = until == Long.MAX_VALUE;
            while (!done && System.nanoTime() < until) {
                var records = consumer.poll(POLL);
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    reads.incrementAndGet(ByteBuffer.wrap(record.value()).getInt());
                }
                // There are as many partitions as members: in the end each has one.
                if (last) {
                    settled.set(number, consumer.assignment().isEmpty() ? 0 : 1);
                }
                if (!records.isEmpty()) {
                    commit(consumer);
                }
            }
        } finally {
            var manner = silently ? GroupMembershipOperation.REMAIN_IN_GROUP : GroupMembershipOperation.LEAVE_GROUP;
            consumer.close(CloseOptions.timeout(Duration.ofSeconds(5)).withGroupMembershipOperation(manner));
        }
    }

    private void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync();
        } catch (CommitFailedException | RebalanceInProgressException moved) {
            failedCommits.incrementAndGet();
        }
    }
}

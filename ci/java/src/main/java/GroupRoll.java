import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A group whose members change, one after the other, from the classic protocol to the consumer protocol and back, while
 * numbered records are written. After each change every partition must come to a member and each member have its share;
 * at no time may two members have one partition; every record must be read. Arguments: bootstrap servers, assignor of the
 * classic members (a class name), topic.
 */
public final class GroupRoll {
    private static final Duration PATIENCE = Duration.ofMinutes(2);
    private static final Duration POLL = Duration.ofMillis(100);
    private static final int MEMBERS = 3;
    private static final int PARTITIONS = 6;
    private static final int MOST_RECORDS = 200_000;

    private final String bootstrap;
    private final String assignor;
    private final String topic;
    private final String group;
    private final AtomicIntegerArray reads = new AtomicIntegerArray(MOST_RECORDS);
    private final AtomicLong written = new AtomicLong();
    private final AtomicLong doubled = new AtomicLong();
    private final AtomicLong lost = new AtomicLong();
    private final AtomicLong failedCommits = new AtomicLong();
    /** The member that has each partition, from 1 on; 0: nobody. */
    private final AtomicIntegerArray owners = new AtomicIntegerArray(PARTITIONS);
    private final CompletableFuture<Throwable> failed = new CompletableFuture<>();
    private volatile boolean done;

    private GroupRoll(String[] arguments) {
        bootstrap = arguments[0];
        assignor = arguments[1];
        topic = arguments[2];
        group = "roll-of-" + topic;
    }

    public static void main(String[] arguments) throws Exception {
        System.exit(new GroupRoll(arguments).run() ? 0 : 1);
    }

    private boolean run() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
            Thread producer = new Thread(this::produce);
            producer.start();
            Member[] members = new Member[MEMBERS];
            for (int number = 0; number < MEMBERS; number++) {
                members[number] = new Member(number, "classic");
            }
            settle(admin, "classic", "all classic");
            roll(admin, members, "consumer", "consumer");
            roll(admin, members, "classic", "consumer");
            done = true;
            producer.join(PATIENCE.toMillis());
            long limit = System.nanoTime() + PATIENCE.toNanos();
            while (missing() > 0 && System.nanoTime() < limit) {
                Thread.sleep(200);
            }
            for (Member member : members) {
                member.stop();
            }
        }
        if (failed.isDone()) {
            failed.get().printStackTrace();
        }
        System.out.printf(
            "roll: %s: classic to consumer and back, %d members: %d records, %d never read, %d partitions doubled, %d "
                + "lost by a member, %d commits refused%n",
            assignor, MEMBERS, written.get(), missing(), doubled.get(), lost.get(), failedCommits.get());
        return missing() == 0 && doubled.get() == 0 && lost.get() == 0 && !failed.isDone();
    }

    /** Every member in turn starts again with the other protocol. */
    private void roll(Admin admin, Member[] members, String protocol, String kindMeanwhile) throws Exception {
        for (int number = 0; number < MEMBERS; number++) {
            members[number].stop();
            members[number] = new Member(number, protocol);
            boolean last = number == MEMBERS - 1;
            settle(admin, last ? protocol : kindMeanwhile, "member " + number + " is " + protocol);
        }
    }

    /** Until the group is of this type and stable, and each member has an equal share. */
    private void settle(Admin admin, String kind, String stage) throws Exception {
        long limit = System.nanoTime() + PATIENCE.toNanos();
        GroupType wanted = GroupType.parse(kind);
        while (!failed.isDone()) {
            int[] shares = new int[MEMBERS + 1];
            for (int partition = 0; partition < PARTITIONS; partition++) {
                shares[owners.get(partition)]++;
            }
            boolean shared = true;
            for (int number = 1; number <= MEMBERS; number++) {
                shared &= shares[number] == PARTITIONS / MEMBERS;
            }
            if (shared) {
                boolean listed = admin.listGroups().all().get().stream().anyMatch(listing ->
                    listing.groupId().equals(group)
                        && listing.type().equals(java.util.Optional.of(wanted))
                        && listing.groupState().equals(java.util.Optional.of(GroupState.STABLE)));
                if (listed) {
                    return;
                }
            }
            if (System.nanoTime() > limit) {
                throw new IllegalStateException("roll: not settled: " + stage + ", shares " + List.of(shares[0],
                    shares[1], shares[2], shares[3]) + ", groups " + admin.listGroups().all().get());
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException("roll: a member failed: " + stage, failed.get());
    }

    private long missing() {
        long missing = 0;
        for (int id = 0; id < written.get(); id++) {
            missing += reads.get(id) == 0 ? 1 : 0;
        }
        return missing;
    }

    private void produce() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(properties, bytes, bytes)) {
            for (int id = 0; id < MOST_RECORDS && !done; id++) {
                byte[] value = ByteBuffer.allocate(Integer.BYTES).putInt(id).array();
                producer.send(new ProducerRecord<>(topic, id % PARTITIONS, null, value), (sent, error) -> {
                    if (error != null) {
                        failed.complete(error);
                    }
                });
                written.incrementAndGet();
                Thread.sleep(5);
            }
        } catch (InterruptedException | KafkaException error) {
            failed.complete(error);
        }
    }

    /** A consumer in a thread of its own. */
    private final class Member implements ConsumerRebalanceListener {
        private final int number;
        private final String protocol;
        private final AtomicBoolean stopped = new AtomicBoolean();
        private final Thread thread;

        private Member(int number, String protocol) {
            this.number = number + 1;
            this.protocol = protocol;
            thread = new Thread(this::read);
            thread.start();
        }

        private void stop() throws InterruptedException {
            stopped.set(true);
            thread.join(TimeUnit.SECONDS.toMillis(60));
        }

        private void read() {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", bootstrap);
            properties.put("group.id", group);
            properties.put("group.protocol", protocol);
            properties.put("auto.offset.reset", "earliest");
            properties.put("enable.auto.commit", "false");
            if (protocol.equals("classic")) {
                properties.put("partition.assignment.strategy", assignor);
                properties.put("heartbeat.interval.ms", "500");
            }
            var bytes = new ByteArrayDeserializer();
            try (var consumer = new KafkaConsumer<>(properties, bytes, bytes)) {
                consumer.subscribe(List.of(topic), this);
                while (!stopped.get()) {
                    var records = consumer.poll(POLL);
                    for (ConsumerRecord<byte[], byte[]> record : records) {
                        reads.incrementAndGet(ByteBuffer.wrap(record.value()).getInt());
                    }
                    if (!records.isEmpty()) {
                        commit(consumer);
                    }
                }
            } catch (KafkaException error) {
                failed.complete(error);
            }
        }

        private void commit(KafkaConsumer<byte[], byte[]> consumer) {
            try {
                consumer.commitSync();
            } catch (CommitFailedException | RebalanceInProgressException moved) {
                failedCommits.incrementAndGet();
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            for (TopicPartition partition : partitions) {
                if (!owners.compareAndSet(partition.partition(), 0, number)) {
                    doubled.incrementAndGet();
                }
            }
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            release(partitions);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            lost.addAndGet(partitions.size());
            release(partitions);
        }

        private void release(Collection<TopicPartition> partitions) {
            for (TopicPartition partition : partitions) {
                owners.compareAndSet(partition.partition(), number, 0);
            }
        }
    }
}

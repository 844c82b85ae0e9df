import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.LongSerializer;

/**
 * A default producer that writes at a steady pace and a default consumer of a group, until a line comes on standard input:
 * then everything sent must have been acknowledged, and everything acknowledged read once and in order. Prints the longest
 * silences between acknowledgements of one partition. Arguments: bootstrap servers, topic, partitions, records per second.
 */
public final class SteadyLoad {
    private static final Duration LIMIT = Duration.ofMinutes(3);

    private final AtomicBoolean ends = new AtomicBoolean();
    private final AtomicLong sent = new AtomicLong();
    private final AtomicLong acknowledged = new AtomicLong();
    private final AtomicInteger failed = new AtomicInteger();
    private final String bootstrap;
    private final String topic;
    private final int partitions;
    private final long[] lastAcknowledged;
    private final long[] longest;
    private volatile String trouble;

    private SteadyLoad(String[] arguments) {
        bootstrap = arguments[0];
        topic = arguments[1];
        partitions = Integer.parseInt(arguments[2]);
        lastAcknowledged = new long[partitions];
        longest = new long[partitions];
    }

    public static void main(String[] arguments) throws Exception {
        var load = new SteadyLoad(arguments);
        var settings = Map.<String, Object>of("bootstrap.servers", load.bootstrap);
        try (var admin = Admin.create(settings)) {
            admin.createTopics(List.of(new NewTopic(load.topic, load.partitions, (short) -1))).all().get();
        }
        var producer = new Thread(() -> load.guarded(() -> load.produce(Long.parseLong(arguments[3]))));
        var consumer = new Thread(() -> load.guarded(load::consume));
        producer.start();
        consumer.start();
        System.out.println("load: begun");
        System.in.read();
        load.ends.set(true);
        producer.join();
        consumer.join();
        var silences = java.util.Arrays.stream(load.longest).sorted().mapToObj(n -> n / 1_000_000 + " ms").toList();
        System.out.printf("load: %d sent, %d acknowledged, %d failed; longest silence of each partition %s%n",
            load.sent.get(), load.acknowledged.get(), load.failed.get(), silences);
        if (load.trouble != null || load.failed.get() > 0 || load.sent.get() != load.acknowledged.get()) {
            System.out.println("load: " + load.trouble);
            System.exit(1);
        }
    }

    private interface Work {
        void run() throws Exception;
    }

    private void guarded(Work work) {
        try {
            work.run();
        } catch (Exception exception) {
            trouble = exception.toString();
        }
    }

    private void produce(long perSecond) throws Exception {
        var settings = new Properties();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        try (var producer = new KafkaProducer<>(settings, new LongSerializer(), new LongSerializer())) {
            long next = System.nanoTime();
            while (!ends.get()) {
                long number = sent.getAndIncrement();
                int partition = (int) (number % partitions);
                producer.send(new ProducerRecord<>(topic, partition, number, number), (metadata, exception) -> {
                    if (exception == null) {
                        acknowledged(partition);
                    } else {
                        failed.incrementAndGet();
                        trouble = "send: " + exception;
                    }
                });
                next += 1_000_000_000 / perSecond;
                TimeUnit.NANOSECONDS.sleep(Math.max(0, next - System.nanoTime()));
            }
        }
    }

    /** Always on the producer's one thread for callbacks. */
    private void acknowledged(int partition) {
        acknowledged.incrementAndGet();
        long now = System.nanoTime();
        if (lastAcknowledged[partition] != 0) {
            longest[partition] = Math.max(longest[partition], now - lastAcknowledged[partition]);
        }
        lastAcknowledged[partition] = now;
    }

    /** Reads until everything acknowledged was read; each partition's numbers must rise by the number of partitions. */
    private void consume() {
        var settings = new Properties();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(ConsumerConfig.GROUP_ID_CONFIG, "readers-of-" + topic);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        var expected = new HashMap<Integer, Long>();
        long read = 0;
        long deadline = 0;
        try (var consumer = new KafkaConsumer<>(settings, new LongDeserializer(), new LongDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (!ends.get() || read < acknowledged.get() || acknowledged.get() + failed.get() < sent.get()) {
                if (ends.get()) {
                    deadline = deadline == 0 ? System.nanoTime() + LIMIT.toNanos() : deadline;
                    if (System.nanoTime() > deadline) {
                        trouble = "only " + read + " records were read in time";
                        return;
                    }
                }
                for (var one : consumer.poll(Duration.ofMillis(200))) {
                    long due = expected.getOrDefault(one.partition(), (long) one.partition());
                    if (one.value() != due) {
                        trouble = "partition " + one.partition() + " gave " + one.value() + " instead of " + due;
                        return;
                    }
                    expected.put(one.partition(), due + partitions);
                    read++;
                }
            }
        }
    }
}

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What the cases of the Java client share: names of their own, writing, reading, expecting, waiting. */
final class Client {
    static final int PATIENCE_SECONDS = 30;

    final String bootstrap;
    final Admin admin;
    private int names;

    Client(String bootstrap) {
        this.bootstrap = bootstrap;
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    /** A condition that is polled. */
    interface Condition {
        boolean holds() throws Exception;
    }

    static void expect(Object found, Object expected, String what) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(what + ": " + found + " instead of " + expected);
        }
    }

    static void until(Condition condition, String what) throws Exception {
        long limit = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (!condition.holds()) {
            if (System.nanoTime() > limit) {
                throw new AssertionError("after " + PATIENCE_SECONDS + " s: " + what);
            }
            Thread.sleep(50);
        }
    }

    synchronized String name(String what) {
        return "java-" + what + "-" + ProcessHandle.current().pid() + "-" + names++;
    }

    String topic(String what, int partitions, Map<String, String> config) throws Exception {
        String name = name(what);
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(config))).all().get();
        until(() -> partitions(name) == partitions, "the topic is not there");
        return name;
    }

    int partitions(String topic) throws Exception {
        try {
            return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
        } catch (ExecutionException unknown) {
            return 0;
        }
    }

    static List<String> values(int count) {
        return IntStream.range(0, count).mapToObj(number -> String.format("%06d", number)).toList();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(ConsumerRecord<byte[], byte[]> record) {
        return new String(record.value(), StandardCharsets.UTF_8);
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
        var all = new HashMap<String, Object>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    void write(Map<String, String> settings, List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        try (var producer = producer(settings)) {
            var sent = new ArrayList<Future<RecordMetadata>>();
            records.forEach(record -> sent.add(producer.send(record)));
            for (var one : sent) {
                one.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
            }
        }
    }

    /** A topic of one partition with so many records. */
    String written(String what, int count) throws Exception {
        String topic = topic(what, 1, Map.of());
        write(Map.of(), values(count).stream().map(value -> new ProducerRecord<byte[], byte[]>(topic, bytes(value))).toList());
        return topic;
    }

    KafkaConsumer<byte[], byte[]> consumer(Map<String, String> settings) {
        var all = new HashMap<String, Object>(settings);
        all.put("bootstrap.servers", bootstrap);
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** So many records, from the offsets given on. */
    List<ConsumerRecord<byte[], byte[]>> read(Map<TopicPartition, Long> starts, int count) {
        var found = new ArrayList<ConsumerRecord<byte[], byte[]>>();
        try (var consumer = consumer(Map.of("isolation.level", "read_committed"))) {
            consumer.assign(starts.keySet());
            starts.forEach(consumer::seek);
            long limit = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
            while (found.size() < count && System.nanoTime() < limit) {
                consumer.poll(Duration.ofMillis(500)).forEach(found::add);
            }
        }
        expect(found.size(), count, "records read");
        return found;
    }

    List<ConsumerRecord<byte[], byte[]>> everything(String topic, int partitions, int count) {
        var starts = new HashMap<TopicPartition, Long>();
        try (var consumer = consumer(Map.of())) {
            var all = IntStream.range(0, partitions).mapToObj(index -> new TopicPartition(topic, index)).toList();
            starts.putAll(consumer.beginningOffsets(all));
        }
        return read(starts, count);
    }
}

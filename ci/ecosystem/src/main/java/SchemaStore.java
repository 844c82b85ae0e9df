import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * How a schema registry keeps its schemas: one compacted partition, a reader that follows it from the beginning, and writes
 * that count once the reader has seen them. Two lives: the second finds what the first wrote, reading to the end through a
 * record of its own. Arguments: bootstrap servers, topic.
 */
public final class SchemaStore {
    private static final int SCHEMAS = 100;
    private static final long PATIENCE_NANOS = TimeUnit.SECONDS.toNanos(120);

    private final Map<String, String> known = new ConcurrentHashMap<>();
    private final KafkaProducer<String, String> producer;
    private final String topic;
    private final Thread reader;
    private final Object moved = new Object();
    private long seen = -1;
    private volatile boolean ended;

    private SchemaStore(String bootstrap, String topic) {
        this.topic = topic;
        Map<String, Object> writing = Map.of("bootstrap.servers", bootstrap, "acks", "all", "retries", "0",
            "enable.idempotence", "false");
        producer = new KafkaProducer<>(writing, new StringSerializer(), new StringSerializer());
        reader = new Thread(() -> follow(bootstrap));
        // What goes wrong elsewhere ends the program.
        reader.setDaemon(true);
        reader.start();
    }

    private void follow(String bootstrap) {
        Map<String, Object> reading = new HashMap<>();
        reading.put("bootstrap.servers", bootstrap);
        reading.put("group.id", "schema-registry-" + topic);
        reading.put("auto.offset.reset", "earliest");
        reading.put("enable.auto.commit", "false");
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            while (!ended) {
                for (var record : consumer.poll(Duration.ofMillis(100))) {
                    if (record.value() == null) {
                        known.remove(record.key());
                    } else {
                        known.put(record.key(), record.value());
                    }
                    synchronized (moved) {
                        seen = record.offset();
                        moved.notifyAll();
                    }
                }
            }
        }
    }

    /** Writes, and waits until the reader has read it. */
    private void put(String key, String value) throws Exception {
        long offset = producer.send(new ProducerRecord<>(topic, 0, key, value)).get(60, TimeUnit.SECONDS).offset();
        long limit = System.nanoTime() + PATIENCE_NANOS;
        synchronized (moved) {
            while (seen < offset) {
                if (System.nanoTime() > limit) {
                    throw new IllegalStateException("offset " + offset + " written, " + seen + " read");
                }
                moved.wait(100);
            }
        }
    }

    private void close() throws Exception {
        ended = true;
        reader.join();
        producer.close();
    }

    private static void prepare(String bootstrap, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            try {
                var wanted = new NewTopic(topic, 1, (short) 1).configs(Map.of("cleanup.policy", "compact"));
                admin.createTopics(List.of(wanted)).all().get();
            } catch (java.util.concurrent.ExecutionException failed) {
                if (!(failed.getCause() instanceof TopicExistsException)) {
                    throw failed;
                }
            }
            // A registry refuses to start where its topic could forget.
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            String policy = admin.describeConfigs(List.of(resource)).all().get().get(resource).get("cleanup.policy").value();
            if (!policy.equals("compact")) {
                throw new IllegalStateException("cleanup.policy is " + policy);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        prepare(arguments[0], arguments[1]);
        var first = new SchemaStore(arguments[0], arguments[1]);
        for (int number = 0; number < SCHEMAS; number++) {
            first.put("subject-" + number % 50, "schema " + number);
        }
        first.put("subject-7", null);
        first.close();
        prepare(arguments[0], arguments[1]);
        var second = new SchemaStore(arguments[0], arguments[1]);
        // Where this is read, all before it was.
        second.put("noop", "");
        boolean same = first.known.entrySet().stream().allMatch(one -> one.getValue().equals(second.known.get(one.getKey())));
        int found = second.known.size();
        second.close();
        if (!same || found != 50 || second.known.containsKey("subject-7") || !second.known.get("subject-49").equals("schema 99")) {
            throw new IllegalStateException("the second life knows " + found + " subjects: " + second.known);
        }
        System.out.println("schema store: " + SCHEMAS + " schemas written and read at once, 49 subjects found again");
    }
}

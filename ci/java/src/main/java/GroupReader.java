import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads a topic as a group of default consumers that come and go: each commits what it read and leaves, the next one
 * goes on from there. Writes every value and a line feed to a file. Fails if the members together read less or more
 * than the topic holds. Arguments: bootstrap servers, topic, number of records, output file.
 */
public final class GroupReader {
    private static final int MEMBERS = 3;
    private static final Duration LIMIT = Duration.ofMinutes(5);
    private static final Duration POLL = Duration.ofMillis(500);

    private GroupReader() {}

    public static void main(String[] arguments) throws IOException {
        String topic = arguments[1];
        long total = Long.parseLong(arguments[2]);
        long read = 0;
        try (OutputStream out = new BufferedOutputStream(Files.newOutputStream(Path.of(arguments[3])), 1 << 16)) {
            for (int member = 1; member <= MEMBERS; member++) {
                long until = member == MEMBERS ? total : total * member / MEMBERS;
                read += readAndCommit(arguments[0], topic, until - read, out);
                System.out.printf("group reader: member %d left after %d of %d records%n", member, read, total);
            }
            long more = pollOnce(arguments[0], topic);
            if (read != total || more != 0) {
                System.out.printf("group reader: %d records read, then %d more, of %d%n", read, more, total);
                System.exit(1);
            }
        }
    }

    private static KafkaConsumer<byte[], byte[]> join(String bootstrap, String topic) {
        Properties properties = new Properties();
        properties.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        properties.put(ConsumerConfig.GROUP_ID_CONFIG, "readers-of-" + topic);
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        KafkaConsumer<byte[], byte[]> consumer =
            new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    /** Reads at least so many records, commits, leaves. */
    private static long readAndCommit(String bootstrap, String topic, long wanted, OutputStream out)
        throws IOException {
        long deadline = System.nanoTime() + LIMIT.toNanos();
        long read = 0;
        try (KafkaConsumer<byte[], byte[]> consumer = join(bootstrap, topic)) {
            while (read < wanted && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    out.write(record.value());
                    out.write('\n');
                    read++;
                }
            }
            consumer.commitSync();
        }
        return read;
    }

    /** What one more member finds: nothing, if all was committed. */
    private static long pollOnce(String bootstrap, String topic) {
        try (KafkaConsumer<byte[], byte[]> consumer = join(bootstrap, topic)) {
            long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (consumer.assignment().isEmpty() && System.nanoTime() < deadline) {
                ConsumerRecords<byte[], byte[]> early = consumer.poll(POLL);
                if (!early.isEmpty()) {
                    return early.count();
                }
            }
            return consumer.poll(Duration.ofSeconds(2)).count();
        }
    }
}

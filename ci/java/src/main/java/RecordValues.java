import java.io.BufferedOutputStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Writes the values of one partition, from its start to its end at the start, one after the other with nothing between. */
public final class RecordValues {
    public static void main(String[] arguments) throws Exception {
        var partition = new TopicPartition(arguments[1], Integer.parseInt(arguments[2]));
        var settings = Map.<String, Object>of("bootstrap.servers", arguments[0], "check.crcs", "true");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, bytes, bytes); var out = new BufferedOutputStream(System.out)) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            var end = consumer.endOffsets(List.of(partition)).get(partition);
            while (consumer.position(partition) < end) {
                for (var one : consumer.poll(Duration.ofSeconds(10))) {
                    out.write(one.value());
                }
            }
        }
    }
}

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.stream.IntStream;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** Writing and reading. */
final class RecordCases {
    private static final double AT_ONCE_SECONDS = 5;

    private final Client client;

    RecordCases(Client client) {
        this.client = client;
    }

    void roundTrip(Map<String, String> settings) throws Exception {
        String topic = client.topic("produce", 3, Map.of());
        var values = Client.values(100).stream().map(value -> value + "-".repeat(1000)).toList();
        client.write(settings, values.stream().map(value -> record(topic, null, Client.bytes(value))).toList());
        Client.expect(client.everything(topic, 3, 100).stream().map(Client::text).sorted().toList(), values, "what came back");
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, byte[] key, byte[] value) {
        return new ProducerRecord<>(topic, key, value);
    }

    void headers() throws Exception {
        String topic = client.topic("headers", 1, Map.of());
        var sent = List.<Header>of(new RecordHeader("a", new byte[] {1}), new RecordHeader("a", new byte[0]),
            new RecordHeader("b", null));
        client.write(Map.of(), List.of(new ProducerRecord<>(topic, 0, null, null, Client.bytes("v"), sent)));
        var found = client.everything(topic, 1, 1).get(0).headers().toArray();
        Client.expect(Arrays.asList(found), sent, "headers");
    }

    void nulls() throws Exception {
        String topic = client.topic("nulls", 1, Map.of());
        byte[] some = {7};
        client.write(Map.of(), List.of(record(topic, null, some), record(topic, some, null), record(topic, null, null),
            record(topic, some, new byte[0])));
        var found = new ArrayList<String>();
        client.everything(topic, 1, 4).forEach(one -> found.add(Arrays.toString(one.key()) + Arrays.toString(one.value())));
        Client.expect(found, List.of("null[7]", "[7]null", "nullnull", "[7][]"), "keys and values");
    }

    void large() throws Exception {
        String topic = client.topic("large", 1, Map.of());
        client.write(Map.of("max.request.size", "2000000"), List.of(record(topic, null, new byte[1_000_000])));
        Client.expect(client.everything(topic, 1, 1).get(0).value().length, 1_000_000, "length");
    }

    void tooLarge() throws Exception {
        String topic = client.topic("large", 1, Map.of("max.message.bytes", "10000"));
        try {
            client.write(Map.of(), List.of(record(topic, null, new byte[20_000])));
        } catch (ExecutionException error) {
            Client.expect(error.getCause().getClass(), RecordTooLargeException.class, "error");
            return;
        }
        throw new AssertionError("a record above max.message.bytes was taken");
    }

    void autoCreate() throws Exception {
        String topic = client.name("auto");
        client.write(Map.of(), List.of(record(topic, null, Client.bytes("first"))));
        client.everything(topic, client.partitions(topic), 1);
    }

    void fromBeginning() throws Exception {
        String topic = client.written("beginning", 50);
        Client.expect(client.everything(topic, 1, 50).stream().map(Client::text).toList(), Client.values(50), "values");
    }

    void fromOffset() throws Exception {
        String topic = client.written("offset", 50);
        var first = client.read(Map.of(new TopicPartition(topic, 0), 37L), 13).get(0);
        Client.expect(first.offset() + " " + Client.text(first), "37 000037", "first record");
    }

    void fromTimestamp() throws Exception {
        String topic = client.topic("timestamp", 1, Map.of());
        long base = System.currentTimeMillis() - 100_000;
        client.write(Map.of(), IntStream.range(0, 50)
            .mapToObj(number -> new ProducerRecord<byte[], byte[]>(topic, 0, base + 1000L * number, null, new byte[1])).toList());
        var partition = new TopicPartition(topic, 0);
        long start;
        try (var consumer = client.consumer(Map.of())) {
            start = consumer.offsetsForTimes(Map.of(partition, base + 20_500)).get(partition).offset();
        }
        Client.expect(start, 21L, "offset at the time");
        Client.expect(client.read(Map.of(partition, start), 29).get(0).offset(), 21L, "first offset");
    }

    void transaction() throws Exception {
        String topic = client.topic("transactions", 1, Map.of());
        long started = System.nanoTime();
        try (var producer = client.producer(Map.of("transactional.id", client.name("tx")))) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(record(topic, null, Client.bytes("v")));
            producer.commitTransaction();
        } catch (KafkaException error) {
            if ((System.nanoTime() - started) / 1e9 > AT_ONCE_SECONDS) {
                throw error;
            }
            throw new Matrix.Refused(error.toString());
        }
        client.everything(topic, 1, 1);
    }
}

import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * A default producer that writes numbered records at an even rate, number n to partition n modulo the partitions. Fails if
 * one is not acknowledged. Arguments: bootstrap servers, topic, partitions, records, records a second.
 */
public final class ChaosProducer {
    public static void main(String[] arguments) {
        int partitions = Integer.parseInt(arguments[2]);
        int records = Integer.parseInt(arguments[3]);
        long gap = 1_000_000_000L / Long.parseLong(arguments[4]);
        var failed = new AtomicInteger();
        try (var producer = new Client(arguments[0]).producer(Map.of())) {
            long next = System.nanoTime();
            for (int number = 0; number < records; number++, next += gap) {
                while (System.nanoTime() < next) {
                    LockSupport.parkNanos(next - System.nanoTime());
                }
                var record = new ProducerRecord<byte[], byte[]>(arguments[1], number % partitions, null,
                    Client.bytes(String.format("Java %d %s", number, "x".repeat(number % 300))));
                producer.send(record, (sent, error) -> {
                    if (error != null && failed.getAndIncrement() == 0) {
                        System.out.println("Java: not acknowledged: " + error);
                    }
                });
            }
        }
        Runtime.getRuntime().halt(failed.get() == 0 ? 0 : 1);
    }
}

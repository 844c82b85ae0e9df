import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Copies a topic's values to another, at least once, in a cluster within this process, until it is told to end. The first
 * life begins where the topic does, a later one where the group's committed offsets are. The record {@code fail} fails the
 * job once, which then goes on from its last checkpoint. Arguments: bootstrap servers, topic, topic to write, group, life.
 */
public final class FlinkCopy {
    private static final int CHECKPOINT_MS = 500;
    private static final int PARALLELISM = 2;

    /** Whether the job failed in this process; the tasks of the cluster share it. */
    private static final AtomicBoolean FAILED = new AtomicBoolean();

    private FlinkCopy() {}

    /** Throws at the first {@code fail}. */
    public static final class FailOnce implements MapFunction<String, String> {
        private static final long serialVersionUID = 1;

        @Override
        public String map(String value) {
            if (value.equals("fail") && FAILED.compareAndSet(false, true)) {
                System.out.println("failed once");
                throw new IllegalStateException("told to fail");
            }
            return value;
        }
    }

    public static void main(String[] arguments) throws Exception {
        var settings = new Configuration();
        settings.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        settings.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS, 3);
        settings.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY, Duration.ofMillis(500));
        var environment = StreamExecutionEnvironment.createLocalEnvironment(PARALLELISM, settings);
        environment.enableCheckpointing(CHECKPOINT_MS);
        boolean isFirst = arguments[4].equals("1");
        KafkaSource<String> source = KafkaSource.<String>builder()
            .setBootstrapServers(arguments[0])
            .setTopics(arguments[1])
            .setGroupId(arguments[3])
            .setStartingOffsets(isFirst ? OffsetsInitializer.earliest() : OffsetsInitializer.committedOffsets())
            .setValueOnlyDeserializer(new SimpleStringSchema())
            .build();
        KafkaSink<String> sink = KafkaSink.<String>builder()
            .setBootstrapServers(arguments[0])
            .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .setRecordSerializer(KafkaRecordSerializationSchema.builder()
                .setTopic(arguments[2])
                .setValueSerializationSchema(new SimpleStringSchema())
                .build())
            .build();
        environment.fromSource(source, WatermarkStrategy.noWatermarks(), "in").map(new FailOnce()).sinkTo(sink);
        environment.execute("copy");
    }
}

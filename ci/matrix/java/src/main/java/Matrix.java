import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * The Java client's program: runs the cases that are asked for, one after the other, each with a limit, and prints a line
 * of JSON for each. Arguments: bootstrap servers, cases.
 */
public final class Matrix {
    private static final int CASE_SECONDS = 45;

    /** A case; what it throws is a failure, but for {@link Refused}. */
    interface Case {
        void run() throws Exception;
    }

    /** The broker refused, with an error that the client reported at once. */
    static final class Refused extends Exception {
        Refused(String detail) {
            super(detail);
        }
    }

    private static Map<String, Case> cases(String bootstrap) {
        var client = new Client(bootstrap);
        var records = new RecordCases(client);
        var groups = new GroupCases(client);
        var admin = new AdminCases(client);
        var cases = new LinkedHashMap<String, Case>();
        cases.put("produce-default", () -> records.roundTrip(Map.of()));
        cases.put("produce-acks-all", () -> records.roundTrip(Map.of("acks", "all", "enable.idempotence", "true")));
        for (String codec : new String[] {"gzip", "snappy", "lz4", "zstd"}) {
            cases.put("codec-" + codec, () -> records.roundTrip(Map.of("compression.type", codec, "linger.ms", "50")));
        }
        cases.put("headers", records::headers);
        cases.put("null-key-value", records::nulls);
        cases.put("large-record", records::large);
        cases.put("too-large-refused", records::tooLarge);
        cases.put("auto-create-topic", records::autoCreate);
        cases.put("read-beginning", records::fromBeginning);
        cases.put("read-offset", records::fromOffset);
        cases.put("read-timestamp", records::fromTimestamp);
        cases.put("transactions", records::transaction);
        cases.put("group-of-three", () -> groups.three("classic"));
        cases.put("group-consumer-protocol", () -> groups.three("consumer"));
        cases.put("group-resume", groups::resume);
        cases.put("group-static", groups::staticMember);
        cases.put("admin-create-topic", admin::createTopic);
        cases.put("admin-create-partitions", admin::createPartitions);
        cases.put("admin-configs", admin::configs);
        cases.put("admin-groups", () -> admin.groups(groups));
        cases.put("admin-list-offsets", admin::listOffsets);
        cases.put("admin-delete-records", admin::deleteRecords);
        cases.put("admin-delete-group", admin::deleteGroup);
        cases.put("admin-delete-topic", admin::deleteTopic);
        cases.put("admin-cluster", admin::cluster);
        return cases;
    }

    private static String version() throws IOException {
        var properties = new Properties();
        try (var file = Matrix.class.getResourceAsStream("/kafka/kafka-version.properties")) {
            properties.load(file);
        }
        return "kafka-clients " + properties.getProperty("version");
    }

    public static void main(String[] arguments) throws IOException {
        var cases = cases(arguments[0]);
        String version = version();
        var threads = Executors.newCachedThreadPool();
        for (int at = 1; at < arguments.length; at++) {
            String name = arguments[at];
            long started = System.nanoTime();
            String result = "pass";
            String detail = "";
            try {
                threads.submit(() -> {
                    cases.get(name).run();
                    return null;
                }).get(CASE_SECONDS, TimeUnit.SECONDS);
            } catch (ExecutionException failed) {
                result = failed.getCause() instanceof Refused ? "refused" : "fail";
                detail = failed.getCause() instanceof Refused ? failed.getCause().getMessage() : failed.getCause().toString();
            } catch (TimeoutException late) {
                result = "fail";
                detail = "not over after " + CASE_SECONDS + " s";
            } catch (InterruptedException interrupted) {
                throw new IllegalStateException(interrupted);
            }
            System.out.printf("{\"client\": \"Java\", \"version\": %s, \"case\": %s, \"result\": %s, \"detail\": %s, "
                    + "\"seconds\": %.2f}%n", text(version), text(name), text(result), text(detail),
                (System.nanoTime() - started) / 1e9);
        }
        // Threads of a case that hung end with the process.
        Runtime.getRuntime().halt(0);
    }

    private static String text(String value) {
        var quoted = new StringBuilder("\"");
        value.chars().limit(300).forEach(one -> {
            if (one == '"' || one == '\\') {
                quoted.append('\\').append((char) one);
            } else {
                quoted.append(one < ' ' ? ' ' : (char) one);
            }
        });
        return quoted.append('"').toString();
    }
}

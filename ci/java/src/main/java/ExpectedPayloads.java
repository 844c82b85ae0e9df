import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Prints the records that Kafka's ProducerPerformance sends from a payload file: it draws lines with a generator of
 * seed 0. Arguments: payload file, number of records.
 */
public final class ExpectedPayloads {
    private ExpectedPayloads() {}

    public static void main(String[] arguments) throws IOException {
        List<String> lines = Files.readAllLines(Path.of(arguments[0]), StandardCharsets.UTF_8);
        SplittableRandom random = new SplittableRandom(0);
        try (PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16))) {
            for (long record = 0; record < Long.parseLong(arguments[1]); record++) {
                out.print(lines.get(random.nextInt(lines.size())));
                out.print('\n');
            }
        }
    }
}

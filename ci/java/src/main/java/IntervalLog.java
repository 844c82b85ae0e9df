import java.io.File;
import java.util.TreeMap;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramLogReader;

/** Reads a HdrHistogram interval log: TAG COUNT P50 P99 P99.9 MAX for each tag, of all its intervals, in the log's unit. */
public final class IntervalLog {
    public static void main(String[] arguments) throws Exception {
        var byTag = new TreeMap<String, Histogram>();
        try (var log = new HistogramLogReader(new File(arguments[0]))) {
            for (var interval = log.nextIntervalHistogram(); interval != null; interval = log.nextIntervalHistogram()) {
                var tag = interval.getTag() == null ? "-" : interval.getTag();
                byTag.computeIfAbsent(tag, name -> new Histogram(3)).add((Histogram) interval);
            }
        }
        byTag.forEach((tag, all) -> System.out.printf("%s %d %d %d %d %d%n", tag, all.getTotalCount(),
            all.getValueAtPercentile(50), all.getValueAtPercentile(99), all.getValueAtPercentile(99.9), all.getMaxValue()));
    }
}

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HexFormat;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;

/**
 * Reads messages from standard input and writes each again with Kafka's own classes: fails at the first one that comes
 * out with other bytes. A line is {@code request|response sample|default KEY VERSION xHEX}; a default is not read but
 * made by Kafka. Run by the test in src/messages/kafka_classes.rs.
 */
public class CheckMessages {
    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        int checked = 0;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            ApiMessageType type = ApiMessageType.fromApiKey(Short.parseShort(words[2]));
            short version = Short.parseShort(words[3]);
            byte[] ours = HexFormat.of().parseHex(words[4].substring(1));
            ApiMessage message = words[0].equals("request") ? type.newRequest() : type.newResponse();
            if (words[1].equals("sample")) {
                ByteBuffer buffer = ByteBuffer.wrap(ours);
                message.read(new ByteBufferAccessor(buffer), version);
                if (buffer.hasRemaining()) {
                    throw new AssertionError(buffer.remaining() + " bytes left of " + line);
                }
            }
            ByteBuffer buffer = MessageUtil.toByteBufferAccessor(message, version).buffer();
            byte[] theirs = new byte[buffer.remaining()];
            buffer.get(theirs);
            if (!Arrays.equals(ours, theirs)) {
                throw new AssertionError(line + " came back as " + HexFormat.of().formatHex(theirs));
            }
            checked++;
        }
        System.out.println(checked + " messages agree");
    }
}

package tidegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.math.BigInteger;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class JsonTest {
    @Test
    void readsEveryKindOfValue() {
        Object read = Json.read(
                " {\"a\" : [1, -2.5e1, true, false, null, []], \"b\":{}, \"\\u00e9\\n\\/\\ud83d\\ude00\":\"\\\"\\\\\"}\t");
        Object expected = Map.of(
                "a", Arrays.asList(1L, -25.0, true, false, null, List.of()), "b", Map.of(), "\u00e9\n/\ud83d\ude00", "\"\\");
        assertEquals(expected, read);
        assertEquals(new BigInteger("123456789012345678901234567890"), Json.read("123456789012345678901234567890"));
    }

    @Test
    void readsWhatItHasWritten() {
        String text = "caf\u00e9 \"\\ \n\t\u0001 \u2028";
        for (Object value : Arrays.asList(null, true, 7L, 0.5, text, List.of(1L, Map.of("k", "v")))) {
            assertEquals(value, Json.read(Json.write(value)));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "01", "1.",
        "+1", "nul", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\n\"", "1 2", "NaN"
    })
    void refusesWhatIsNotJson(String text) {
        assertThrows(IllegalArgumentException.class, () -> Json.read(text));
    }

    @Test
    void refusesWhatJsonCannotExpress() {
        for (Object value : Arrays.asList(new Object(), Double.NaN, List.of(Float.POSITIVE_INFINITY))) {
            assertThrows(IllegalArgumentException.class, () -> Json.write(value));
        }
    }

    @Test
    void refusesToNestWithoutEnd() {
        assertThrows(IllegalArgumentException.class, () -> Json.read("[".repeat(100_000)));
    }
}

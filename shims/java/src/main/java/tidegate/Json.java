package tidegate;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Reads and writes JSON. Objects are Maps, arrays are Lists, whole numbers are Long (BigInteger where a Long is too
 * short), other numbers are Double.
 */
final class Json {
    /** Nested deeper than any line of tidegate, and less than a stack can bear. */
    private static final int MAX_DEPTH = 200;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Throws an IllegalArgumentException if the text is not JSON. */
    static Object read(String text) {
        Json json = new Json(text);
        Object value = json.value(0);
        json.space();
        if (json.at != text.length()) {
            throw json.invalid("the end");
        }
        return value;
    }

    private IllegalArgumentException invalid(String expected) {
        String found = at < text.length() ? "'" + text.charAt(at) + "'" : "the end";
        return new IllegalArgumentException("found " + found + " instead of " + expected + " at character " + at);
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    /** Takes this character, if it is the next one after space. */
    private boolean took(char wanted) {
        space();
        boolean is = at < text.length() && text.charAt(at) == wanted;
        at += is ? 1 : 0;
        return is;
    }

    private void take(char wanted) {
        if (!took(wanted)) {
            throw invalid("'" + wanted + "'");
        }
    }

    private Object value(int depth) {
        if (depth > MAX_DEPTH) {
            throw invalid("a value that is nested less deeply");
        }
        if (took('{')) {
            return object(depth);
        } else if (took('[')) {
            return array(depth);
        } else if (took('"')) {
            return string();
        }
        for (Object[] word : new Object[][] {{"true", true}, {"false", false}, {"null", null}}) {
            if (text.startsWith((String) word[0], at)) {
                at += ((String) word[0]).length();
                return word[1];
            }
        }
        return number();
    }

    private Map<String, Object> object(int depth) {
        Map<String, Object> entries = new LinkedHashMap<>();
        if (took('}')) {
            return entries;
        }
        do {
            take('"');
            String key = string();
            take(':');
            entries.put(key, value(depth + 1));
        } while (took(','));
        take('}');
        return entries;
    }

    private List<Object> array(int depth) {
        List<Object> values = new ArrayList<>();
        if (took(']')) {
            return values;
        }
        do {
            values.add(value(depth + 1));
        } while (took(','));
        take(']');
        return values;
    }

    private String string() {
        StringBuilder said = new StringBuilder();
        while (true) {
            int from = at;
            while (at < text.length() && text.charAt(at) != '"' && text.charAt(at) != '\\' && text.charAt(at) >= ' ') {
                at++;
            }
            said.append(text, from, at);
            if (at == text.length() || text.charAt(at) < ' ') {
                throw invalid("the end of a string");
            }
            if (text.charAt(at++) == '"') {
                return said.toString();
            }
            said.append(escaped());
        }
    }

    private char escaped() {
        if (at == text.length()) {
            throw invalid("an escape");
        }
        char escape = text.charAt(at++);
        int known = "\"\\/bfnrt".indexOf(escape);
        if (known >= 0) {
            return "\"\\/\b\f\n\r\t".charAt(known);
        }
        if (escape != 'u' || at + 4 > text.length()) {
            at--;
            throw invalid("an escape");
        }
        int code = 0;
        for (int end = at + 4; at < end; at++) {
            int digit = Character.digit(text.charAt(at), 16);
            if (digit < 0) {
                throw invalid("a hexadecimal digit");
            }
            code = code * 16 + digit;
        }
        return (char) code;
    }

    private Number number() {
        int from = at;
        while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        String digits = text.substring(from, at);
        if (!digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) {
            at = from;
            throw invalid("a value");
        }
        if (!digits.matches("-?[0-9]+")) {
            return Double.valueOf(digits);
        }
        return digits.length() < 19 ? (Number) Long.valueOf(digits) : new BigInteger(digits);
    }

    /** Throws an IllegalArgumentException if JSON cannot express the value. */
    static String write(Object value) {
        StringBuilder to = new StringBuilder();
        write(value, to, 0);
        return to.toString();
    }

    private static void write(Object value, StringBuilder to, int depth) {
        if (depth > MAX_DEPTH) {
            throw new IllegalArgumentException("a value is nested too deeply for JSON");
        }
        if (value == null || value instanceof Boolean) {
            to.append(value);
        } else if (value instanceof Number) {
            if (!Double.isFinite(((Number) value).doubleValue()) && !(value instanceof BigInteger)) {
                throw new IllegalArgumentException("JSON has no " + value);
            }
            to.append(value);
        } else if (value instanceof CharSequence) {
            quote((CharSequence) value, to);
        } else if (value instanceof Map) {
            String before = "{";
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                to.append(before);
                quote(String.valueOf(entry.getKey()), to);
                write(entry.getValue(), to.append(':'), depth + 1);
                before = ",";
            }
            to.append(before.equals("{") ? "{}" : "}");
        } else if (value instanceof Iterable) {
            String before = "[";
            for (Object one : (Iterable<?>) value) {
                write(one, to.append(before), depth + 1);
                before = ",";
            }
            to.append(before.equals("[") ? "[]" : "]");
        } else {
            throw new IllegalArgumentException("JSON cannot express a " + value.getClass().getName());
        }
    }

    private static void quote(CharSequence text, StringBuilder to) {
        to.append('"');
        for (int n = 0; n < text.length(); n++) {
            char c = text.charAt(n);
            if (c == '"' || c == '\\') {
                to.append('\\').append(c);
            } else if (c < ' ') {
                to.append(String.format("\\u%04x", (int) c));
            } else {
                to.append(c);
            }
        }
        to.append('"');
    }
}

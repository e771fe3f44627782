package tidegate;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;

/** A job. A value that the message does not have is null. */
public final class Job {
    private final Map<String, Object> line;
    private final Consumer<Map<String, Object>> say;
    private final byte[] body;
    private Thread thread;
    private boolean stopped;
    private boolean last;

    Job(Map<String, Object> line, Consumer<Map<String, Object>> say) {
        this.line = line;
        this.say = say;
        Object bytes = line.remove("body_base64");
        Object text = line.remove("body");
        body = bytes != null ? Base64.getDecoder().decode((String) bytes)
                : text != null ? ((String) text).getBytes(StandardCharsets.UTF_8) : new byte[0];
    }

    /** The message's id, or an id that tidegate made. */
    public String id() {
        return text("id");
    }

    /** 1 for the first attempt. */
    public int attempt() {
        return ((Number) line.get("attempt")).intValue();
    }

    /** The body, unchanged. */
    public byte[] body() {
        return body;
    }

    /** The body as text. Bytes that are not UTF-8 are replaced. */
    public String text() {
        return new String(body, StandardCharsets.UTF_8);
    }

    /**
     * The body as JSON: a Map, List, String, Long, BigInteger, Double, Boolean or null. A body that is not JSON rejects
     * the job: another attempt would fail too.
     */
    public Object json() {
        try {
            return Json.read(text());
        } catch (IllegalArgumentException error) {
            throw new Reject("the body is not JSON: " + error.getMessage());
        }
    }

    /** The headers. Bytes are a Map with the key {@code base64}. */
    @SuppressWarnings("unchecked")
    public Map<String, Object> headers() {
        Object headers = line.get("headers");
        return headers == null ? Map.of() : Collections.unmodifiableMap((Map<String, Object>) headers);
    }

    /** Any key of the job's line but the body, also one that this version of the package does not know. */
    public Object get(String key) {
        return line.get(key);
    }

    private String text(String key) {
        return (String) line.get(key);
    }

    public String pool() {
        return text("pool");
    }

    public String queue() {
        return text("queue");
    }

    public boolean redelivered() {
        return Boolean.TRUE.equals(line.get("redelivered"));
    }

    /** Whether the headers are not complete. */
    public boolean truncated() {
        return Boolean.TRUE.equals(line.get("truncated"));
    }

    /** The exchange of the first publish. The default exchange is "". */
    public String exchange() {
        return text("exchange");
    }

    public String routingKey() {
        return text("routing_key");
    }

    public String type() {
        return text("type");
    }

    public String appId() {
        return text("app_id");
    }

    public String messageId() {
        return text("message_id");
    }

    public String correlationId() {
        return text("correlation_id");
    }

    public String replyTo() {
        return text("reply_to");
    }

    public Long priority() {
        return (Long) line.get("priority");
    }

    /** In seconds since 1970. */
    public Long timestamp() {
        return (Long) line.get("timestamp");
    }

    public String contentType() {
        return text("content_type");
    }

    public String contentEncoding() {
        return text("content_encoding");
    }

    public String traceparent() {
        return text("traceparent");
    }

    public String tracestate() {
        return text("tracestate");
    }

    /** The job's {@code timeout} starts again. The note is any value of JSON but null. */
    public void progress(Object note) {
        tell(new LinkedHashMap<>(Map.of("progress", note)));
    }

    /** Asks for a new process in the place of this one after the job. */
    public void retire() {
        last = true;
    }

    /** Whether the job must stop. Its thread was interrupted then. */
    public synchronized boolean isStopped() {
        return stopped;
    }

    synchronized void stop() {
        stopped = true;
        if (thread != null) {
            thread.interrupt();
        }
    }

    private synchronized void running(Thread thread) {
        this.thread = thread;
        if (thread == null) {
            Thread.interrupted(); // The next job of this thread is not stopped.
        } else if (stopped) {
            thread.interrupt();
        }
    }

    private void tell(Map<String, Object> told) {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("id", line.get("id"));
        if (line.containsKey("slot")) {
            answer.put("slot", line.get("slot")); // Absent in version 1.
        }
        answer.putAll(told);
        say.accept(answer);
    }

    /** Runs the job and answers. */
    void run(Handler handler) {
        Map<String, Object> told = new LinkedHashMap<>();
        try {
            running(Thread.currentThread());
            Object reply;
            try {
                reply = handler.handle(this);
            } finally {
                running(null);
            }
            told.put("outcome", "done");
            if (reply instanceof byte[]) {
                told.put("reply_base64", Base64.getEncoder().encodeToString((byte[]) reply));
            } else if (reply != null) {
                told.put("reply", reply);
            }
            answer(told);
        } catch (Throwable thrown) {
            told.clear();
            failed(thrown, told);
            answer(told);
        }
    }

    private void answer(Map<String, Object> told) {
        if (last) {
            told.put("last", true);
        }
        tell(told);
    }

    private void failed(Throwable thrown, Map<String, Object> told) {
        if (thrown instanceof Retry) {
            told.put("outcome", "retry");
            if (((Retry) thrown).delay() != null) {
                told.put("delay", ((Retry) thrown).delay().toMillis() / 1000.0);
            }
        } else if (thrown instanceof Reject) {
            told.put("outcome", "reject");
            told.put("error", String.valueOf(thrown.getMessage()));
        } else if (thrown instanceof InterruptedException && isStopped()) {
            told.put("outcome", "failed");
            told.put("error", "stopped");
        } else {
            thrown.printStackTrace();
            told.put("outcome", "failed");
            told.put("error", thrown.toString());
        }
    }
}

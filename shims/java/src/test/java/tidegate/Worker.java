package tidegate;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/** The handlers of the protocol's vectors. A job's header {@code do} selects what it does. */
final class Worker {
    private static final CountDownLatch MEETING = new CountDownLatch(2);

    public static void main(String[] arguments) throws Exception {
        Tidegate.serve(Worker::handle, arguments.length > 0 ? Integer.parseInt(arguments[0]) : Integer.MAX_VALUE);
    }

    private static Object handle(Job job) throws Exception {
        switch (String.valueOf(job.headers().get("do"))) {
            case "describe":
                return describe(job);
            case "digest":
                byte[] sum = MessageDigest.getInstance("SHA-256").digest(job.body());
                return Map.of("length", job.body().length, "sha256", HexFormat.of().formatHex(sum));
            case "attempt":
                return job.attempt();
            case "text":
                return job.text();
            case "bytes":
                return job.body();
            case "json":
                return Map.of("n", Arrays.asList(1, null, "café", true, 0.5), "empty", Map.of());
            case "not json":
                return List.of(new Object());
            case "retry in 2.5":
                throw new Retry(Duration.ofMillis(2500));
            case "retry":
                throw new Retry();
            case "reject":
                throw new Reject("no such image");
            case "fail":
                System.out.println("stray");
                throw new IllegalStateException("why");
            case "fail with bytes":
                throw new IllegalStateException("why \ud800");
            case "progress":
                job.progress("40 %");
                job.progress(true);
                job.progress(Map.of("left", List.of(1)));
                return null;
            case "print":
                System.out.println("stray");
                new ProcessBuilder("echo", "stray, of a child").inheritIO().start().waitFor();
                return null;
            case "retire":
                job.retire();
                return null;
            case "meet":
                MEETING.countDown();
                MEETING.await();
                return "met";
            case "wait":
                new CountDownLatch(1).await();
                return null;
            case "finish":
                try {
                    new CountDownLatch(1).await();
                } catch (InterruptedException stopped) {
                    return "finished";
                }
                return null;
            case "sleep":
                Thread.sleep(100);
                return "slept";
            default:
                return null;
        }
    }

    private static Map<String, Object> describe(Job job) {
        Map<String, Object> seen = new LinkedHashMap<>();
        seen.put("id", job.id());
        seen.put("attempt", job.attempt());
        seen.put("pool", job.pool());
        seen.put("queue", job.queue());
        seen.put("redelivered", job.redelivered());
        seen.put("exchange", job.exchange());
        seen.put("routing_key", job.routingKey());
        seen.put("type", job.type());
        seen.put("app_id", job.appId());
        seen.put("message_id", job.messageId());
        seen.put("correlation_id", job.correlationId());
        seen.put("reply_to", job.replyTo());
        seen.put("priority", job.priority());
        seen.put("timestamp", job.timestamp());
        seen.put("content_type", job.contentType());
        seen.put("content_encoding", job.contentEncoding());
        seen.put("traceparent", job.traceparent());
        seen.put("tracestate", job.tracestate());
        seen.put("headers", job.headers());
        seen.put("truncated", job.truncated());
        seen.put("body", new String(Base64.getEncoder().encode(job.body()), StandardCharsets.US_ASCII));
        return seen;
    }
}

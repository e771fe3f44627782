package tidegate;

import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Serves the jobs of a tidegate pool of kind "warm", up to the pool's {@code concurrency} at a time, in threads.
 *
 * <pre>{@code
 * Tidegate.serve(job -> "resized " + job.body().length + " bytes");
 * }</pre>
 */
public final class Tidegate {
    private Tidegate() {}

    /** {@link #serve(Handler, int)} with as many jobs at a time as the pool allows. */
    public static void serve(Handler handler) throws IOException, InterruptedException {
        serve(handler, Integer.MAX_VALUE);
    }

    /**
     * Calls the handler for each job, at most {@code concurrency} at a time, and returns when there are no more. From the
     * call on, System.out goes to the log. Output of child processes that inherit it is dropped.
     */
    @SuppressWarnings("unchecked")
    public static void serve(Handler handler, int concurrency) throws IOException, InterruptedException {
        String most = System.getenv().getOrDefault("TIDEGATE_CONCURRENCY", "1");
        int slots = Math.max(1, Math.min(concurrency, Integer.parseInt(most)));
        try (FileInputStream input = new FileInputStream("/dev/stdin");
                OutputStream answers = new FileOutputStream("/dev/stdout", true)) {
            // Java connects these descriptors with /dev/null when they are closed.
            new FileInputStream(FileDescriptor.in).close();
            new FileOutputStream(FileDescriptor.out).close();
            System.setOut(System.err);
            say(answers, ready(slots));
            ExecutorService threads = Executors.newFixedThreadPool(slots);
            try {
                Map<Object, Job> jobs = new HashMap<>(); // The last job of each slot. In version 1 there is no slot.
                BufferedReader lines = new BufferedReader(new InputStreamReader(input, StandardCharsets.UTF_8));
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    Map<String, Object> said = (Map<String, Object>) Json.read(line);
                    if (Boolean.TRUE.equals(said.get("stop"))) {
                        Job job = jobs.get(said.get("slot"));
                        if (job != null) {
                            job.stop();
                        }
                    } else {
                        Job job = new Job(said, told -> say(answers, told));
                        jobs.put(said.get("slot"), job);
                        threads.execute(() -> job.run(handler));
                    }
                }
            } finally {
                // Finish what has begun.
                threads.shutdown();
                threads.awaitTermination(Long.MAX_VALUE, TimeUnit.NANOSECONDS);
            }
        }
    }

    private static Map<String, Object> ready(int slots) {
        Map<String, Object> ready = new LinkedHashMap<>();
        ready.put("ready", true);
        ready.put("protocol", slots > 1 ? 2 : 1);
        if (slots > 1) {
            ready.put("concurrency", slots);
        }
        return ready;
    }

    /** Writes a line at once, so that lines of two jobs do not mix. */
    private static void say(OutputStream answers, Map<String, Object> line) {
        byte[] bytes = (Json.write(line) + "\n").getBytes(StandardCharsets.UTF_8);
        try {
            synchronized (answers) {
                answers.write(bytes);
            }
        } catch (IOException error) {
            throw new UncheckedIOException("failed to answer tidegate", error);
        }
    }
}

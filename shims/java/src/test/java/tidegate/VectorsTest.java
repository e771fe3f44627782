package tidegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.Timeout;

/** Runs the vectors of the protocol against the package, each with a worker process of its own. */
class VectorsTest {
    private static final long TIME_LIMIT_SECONDS = 60;

    @SuppressWarnings("unchecked")
    private static Map<String, Object> map(Object value) {
        return (Map<String, Object>) value;
    }

    private static Stream<Map<String, Object>> vectors(String file) {
        try {
            return Files.readAllLines(Path.of("..", "vectors", file)).stream().map(line -> map(Json.read(line)));
        } catch (java.io.IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @TestFactory
    Stream<DynamicTest> vectors() {
        return Stream.of("version-1.jsonl", "version-2.jsonl")
                .flatMap(VectorsTest::vectors)
                .map(vector -> DynamicTest.dynamicTest(
                        "version " + vector.get("protocol") + ": " + vector.get("case"), () -> run(vector)));
    }

    @Test
    @Timeout(TIME_LIMIT_SECONDS)
    void aWorkerMayTakeFewerJobsThanThePoolAllows() throws Exception {
        String expect = "{\"ready\":true,\"protocol\":2,\"concurrency\":3}";
        run(map(Json.read("{\"protocol\":2,\"concurrency\":4,\"steps\":[{\"expect\":[" + expect + "]}]}")), "3");
    }

    @Test
    void aBodyThatIsNotJsonIsRejected() {
        Job job = new Job(new HashMap<>(Map.of("body", "{")), told -> {});
        try {
            job.json();
        } catch (Reject rejected) {
            assertTrue(rejected.getMessage().contains("the body is not JSON"), rejected.getMessage());
            return;
        }
        throw new AssertionError("it is not rejected");
    }

    private static void run(Map<String, Object> vector, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                "-cp", "target/classes:target/test-classes", "tidegate.Worker"));
        command.addAll(List.of(arguments));
        ProcessBuilder builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD);
        builder.environment().put("TIDEGATE_PROTOCOL", vector.get("protocol").toString());
        builder.environment().put("TIDEGATE_CONCURRENCY", vector.get("concurrency").toString());
        Process worker = builder.start();
        Thread timer = new Thread(() -> {
            try {
                if (!worker.waitFor(TIME_LIMIT_SECONDS, TimeUnit.SECONDS)) {
                    worker.destroyForcibly();
                }
            } catch (InterruptedException ended) {
                worker.destroyForcibly();
            }
        });
        timer.start();
        try (OutputStream input = worker.getOutputStream();
                InputStreamReader output = new InputStreamReader(worker.getInputStream(), StandardCharsets.UTF_8);
                BufferedReader lines = new BufferedReader(output)) {
            for (Object each : (List<?>) vector.get("steps")) {
                Map<String, Object> step = map(each);
                if (step.containsKey("send")) {
                    input.write((text(step) + "\n").getBytes(StandardCharsets.UTF_8));
                    input.flush();
                } else if (step.containsKey("end")) {
                    input.close();
                } else {
                    expect((List<?>) step.get("expect"), lines);
                }
            }
            input.close();
            assertNull(lines.readLine(), "there is output after the last answer");
            assertEquals(0, worker.waitFor());
        } finally {
            timer.interrupt();
            timer.join();
        }
    }

    private static String text(Map<String, Object> step) {
        String text = (String) step.get("send");
        List<?> fill = (List<?>) step.get("fill");
        return fill == null ? text : text.replace("{fill}", ((String) fill.get(0)).repeat(((Long) fill.get(1)).intValue()));
    }

    private static void expect(List<?> expected, BufferedReader lines) throws Exception {
        List<Map<String, Object>> wanted = new ArrayList<>();
        List<Map<String, Object>> found = new ArrayList<>();
        for (Object one : expected) {
            wanted.add(plain(one));
            String line = lines.readLine();
            assertNotNull(line, "no answer");
            found.add(plain(Json.read(line)));
        }
        // Lines of one job have an order. Jobs have none among each other.
        Comparator<Map<String, Object>> byJob = Comparator.comparing(line -> line.get("slot") + " " + line.get("id"));
        wanted.sort(byJob);
        found.sort(byJob);
        for (int n = 0; n < found.size(); n++) {
            Object error = wanted.get(n).get("error");
            Object said = found.get(n).get("error");
            // Any text that contains this.
            if (error instanceof Map && said != null && said.toString().contains((String) map(error).get("contains"))) {
                found.get(n).put("error", error);
            }
        }
        assertEquals(wanted, found);
    }

    /** A key with null is the same as no key. */
    private static Map<String, Object> plain(Object line) {
        Map<String, Object> plain = new HashMap<>(map(line));
        plain.values().removeIf(value -> value == null);
        return plain;
    }
}

package tidegate;

/** Runs a job. */
@FunctionalInterface
public interface Handler {
    /**
     * Its result is the reply: null for no reply, a String, a byte[], or a Map, a List, a Number or a Boolean for JSON.
     * {@link Retry} and {@link Reject} are outcomes, and anything else that it throws fails the job. Its thread is
     * interrupted if the job must stop.
     */
    Object handle(Job job) throws Exception;
}

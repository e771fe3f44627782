package tidegate;

import java.time.Duration;

/** Try the job again later. */
public final class Retry extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Duration delay;

    /** After the pool's backoff. */
    public Retry() {
        this(null);
    }

    /** After this time. */
    public Retry(Duration delay) {
        super("asked for a later attempt", null, false, false);
        this.delay = delay;
    }

    Duration delay() {
        return delay;
    }
}

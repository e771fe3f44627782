package tidegate;

/** The job can never succeed: its message is dead-lettered with this reason. */
public final class Reject extends RuntimeException {
    private static final long serialVersionUID = 1;

    public Reject(String reason) {
        super(reason);
    }
}

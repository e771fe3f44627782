# Serves the jobs of a tidegate pool of kind "warm". Copy it to the folder of your worker.
require "json"

module Tidegate
  # Try again later. Raise it with a delay in seconds, or without one for the pool's backoff.
  class Retry < StandardError
    attr_reader :delay
    def initialize(delay = nil) = (super("asked for later"); @delay = delay)
  end

  # The job can never succeed: the message is dead-lettered with this reason.
  class Reject < StandardError; end

  # Calls the block with each job. Its return value is the reply (nil for none). An exception is a failure.
  def self.serve
    answers, jobs = $stdout.dup, $stdin.dup
    $stdin.reopen(File::NULL)
    $stdout.reopen($stderr) # From here on all output, also of child processes, goes to the log.
    say = ->(line) { answers.puts(JSON.generate(line)) || answers.flush }
    words = ->(error) { error.message.dup.force_encoding("UTF-8").scrub }
    # JSON.generate would convert any other value to its description.
    plain = ->(it) { case it when Hash then it.values.all?(&plain) when Array then it.all?(&plain)
                     when nil, true, false, String, Symbol, Integer, Float then true end }
    say.(ready: true, protocol: 1)
    jobs.each_line do |line|
      id = (job = JSON.parse(line))["id"]
      job["bytes"] = job["body_base64"]&.unpack1("m") || job["body"]
      reply = yield(job, ->(note = true) { say.(id: id, progress: note) })
      raise TypeError, "the reply (#{reply.class}) has what JSON has no word for" unless plain.(reply)
      say.(id: id, outcome: "done", reply: reply)
    rescue Retry => e then say.(id: id, outcome: "retry", delay: e.delay)
    rescue Reject => e then say.(id: id, outcome: "reject", error: words.(e))
    rescue StandardError, SystemStackError => e
      warn e.full_message
      say.(id: id, outcome: "failed", error: "#{e.class}: #{words.(e)}")
    end
  end
end

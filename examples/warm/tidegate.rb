# Serves the jobs of a tidegate pool of kind "warm". Copy it beside your worker.
require "json"

module Tidegate
  # Not now. Raise it with a delay in seconds, or with none for the pool's own backoff.
  class Retry < StandardError
    attr_reader :delay

    def initialize(delay = nil) = (super("asked for later"); @delay = delay)
  end

  # It will never work: the message goes to the dead letters, with this reason.
  class Reject < StandardError; end

  # Calls the block with each job. What it returns is the reply, where that is text; what it raises, a failure.
  def self.serve
    answers, jobs = $stdout.dup, $stdin.dup
    $stdin.reopen(File::NULL)
    $stdout.reopen($stderr) # Whatever is printed from here on, by child processes too, goes to the log.
    say = ->(line) { answers.puts(JSON.generate(line)) || answers.flush }
    words = ->(error) { error.message.dup.force_encoding("UTF-8").scrub }
    say.(ready: true, protocol: 1)
    jobs.each_line do |line|
      job = JSON.parse(line)
      id = job["id"]
      job["bytes"] = job["body_base64"]&.unpack1("m") || job["body"]
      reply = yield(job, ->(note = true) { say.(id: id, progress: note) })
      say.(id: id, outcome: "done", reply: (reply if reply.is_a?(String)))
    rescue Retry => e
      say.(id: id, outcome: "retry", delay: e.delay)
    rescue Reject => e
      say.(id: id, outcome: "reject", error: words.(e))
    rescue StandardError => e
      warn e.full_message
      say.(id: id, outcome: "failed", error: "#{e.class}: #{words.(e)}")
    end
  end
end

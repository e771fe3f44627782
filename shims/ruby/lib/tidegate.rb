# frozen_string_literal: true

require "json"

# Serves the jobs of a tidegate pool of kind "warm", up to the pool's `concurrency` at a time, in threads.
#
#   Tidegate.serve { |job| "resized #{job.body.bytesize} bytes" }
module Tidegate
  # Try the job again later. Takes a delay in seconds, or none for the pool's backoff.
  class Retry < StandardError
    attr_reader :delay

    def initialize(delay = nil)
      super("asked for a later attempt")
      @delay = delay
    end
  end

  # The job can never succeed: its message is dead-lettered with this reason.
  class Reject < StandardError; end

  # The job must stop: see Job#check.
  class Stopped < StandardError
    def initialize(message = "stopped") = super
  end

  # A job. A value that the message does not have is nil.
  class Job
    # The body, unchanged: a string of bytes (ASCII-8BIT).
    attr_reader :body
    # The job's whole line, with the keys that this version of the gem does not know.
    attr_reader :line

    # The keys of the protocol. `timestamp` is in seconds since 1970. `exchange` and `routing_key` are those of the first
    # publish. Bytes in `headers` are `{"base64" => "..."}`, and `truncated` says that the headers are not complete.
    %w[id attempt headers truncated pool queue redelivered exchange routing_key type app_id message_id correlation_id
       reply_to priority timestamp content_type content_encoding traceparent tracestate].each do |key|
      define_method(key) { @line[key] }
    end

    def initialize(line, &tell)
      @line = line
      @tell = tell
      @body = (line["body_base64"]&.unpack1("m") || line["body"] || "").b
      @lock = Mutex.new
      @stop = ConditionVariable.new
      @stopped = @last = false
    end

    # The body as text. Raises EncodingError if it is not UTF-8.
    def text
      text = @body.dup.force_encoding("UTF-8")
      text.valid_encoding? ? text : raise(EncodingError, "the body is not UTF-8")
    end

    # The body as JSON. A body that is not JSON rejects the job: another attempt would fail too.
    def json
      JSON.parse(@body.dup.force_encoding("UTF-8"))
    rescue JSON::ParserError => e
      raise Reject, "the body is not JSON: #{e.message}"
    end

    # The job's `timeout` starts again. `note` is any value of JSON but nil.
    def progress(note = true)
      @tell.call({ progress: note })
      nil
    end

    # Asks for a new process in the place of this one after the job.
    def retire
      @last = true
      nil
    end

    # Whether the job must stop.
    def stopped? = @lock.synchronize { @stopped }

    # Raises Stopped if the job must stop. Call it now and then in long work.
    def check = stopped? && raise(Stopped)

    # Waits for so many seconds, without a number for ever. Raises Stopped as soon as the job must stop.
    def wait(seconds = nil)
      ending = seconds && (now + seconds)
      @lock.synchronize do
        until @stopped || (ending && now >= ending)
          @stop.wait(@lock, ending && [ending - now, 0].max)
        end
      end
      check
    end

    # @private
    def stop
      @lock.synchronize do
        @stopped = true
        @stop.broadcast
      end
    end

    # Runs the block with the job, and answers. In a thread any exception fails the job: `exit` would only end the
    # thread. @private
    def run(failures)
      reply = yield(self)
      raise TypeError, "JSON cannot express the reply, a #{reply.class}" unless Tidegate.json?(reply)

      answer("done", bytes?(reply) ? { reply_base64: [reply].pack("m0") } : { reply: reply })
    rescue Retry => e then answer("retry", { delay: e.delay })
    rescue Reject => e then answer("reject", { error: words(e) })
    rescue Stopped => e then answer("failed", { error: words(e) })
    rescue *failures => e
      warn e.full_message(highlight: false)
      answer("failed", { error: "#{e.class}: #{words(e)}" })
    end

    private

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    def bytes?(reply) = reply.is_a?(String) && reply.encoding == Encoding::BINARY

    def answer(outcome, more) = @tell.call({ outcome: outcome, **more.compact, **(@last ? { last: true } : {}) })

    def words(error) = error.message.dup.force_encoding("UTF-8").scrub
  end

  # Calls the block with each job, and returns when there are no more. Its result is the reply: nil for no reply, text,
  # bytes (ASCII-8BIT), or a Hash, Array, number or boolean for JSON. `concurrency` is for fewer jobs at a time than the
  # pool allows. From the call on, all output goes to the log.
  def self.serve(concurrency: nil, &handle)
    answers = $stdout.dup
    jobs = $stdin.dup
    $stdin.reopen(File::NULL)
    $stdout.reopen($stderr) # Also of child processes.
    lock = Mutex.new
    say = lambda do |line|
      text = JSON.generate(line) << "\n"
      lock.synchronize { answers.write(text) && answers.flush }
    end
    most = Integer(ENV.fetch("TIDEGATE_CONCURRENCY", "1"))
    slots = [most, concurrency || most].min.clamp(1..)
    say.call({ ready: true, **(slots > 1 ? { protocol: 2, concurrency: slots } : { protocol: 1 }) })
    running = {} # The last job of each slot, and its thread. In version 1 there is no slot.
    jobs.each_line do |line|
      line = JSON.parse(line)
      slot = line["slot"]
      if line["stop"]
        running[slot]&.first&.stop
        next
      end
      place = line.slice("id", "slot")
      job = Job.new(line) { |told| say.call(place.merge(told)) }
      if slots == 1
        job.run([StandardError, SystemStackError], &handle)
      else
        running[slot] = [job, Thread.new { job.run([Exception], &handle) }]
      end
    end
    running.each_value { |_, thread| thread.join } # Finish what has begun.
    nil
  end

  # Whether JSON can express a value. JSON.generate would write a description of any other object. @private
  def self.json?(value)
    case value
    when Hash then value.values.all? { |each| json?(each) }
    when Array then value.all? { |each| json?(each) }
    when nil, true, false, String, Symbol, Integer, Float then true
    end
  end
end

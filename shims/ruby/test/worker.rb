# frozen_string_literal: true

# The handlers of the protocol's vectors. A job's header `do` selects what it does.
require "digest"
require_relative "../lib/tidegate"

KEYS = %w[id attempt headers truncated pool queue redelivered exchange routing_key type app_id message_id correlation_id
          reply_to priority timestamp content_type content_encoding traceparent tracestate].freeze
MEETING = Queue.new
MET = Queue.new

Tidegate.serve(concurrency: ENV["MOST"]&.to_i) do |job|
  case job.headers["do"]
  when "describe" then KEYS.to_h { |key| [key, job.public_send(key)] }.merge("body" => [job.body].pack("m0"))
  when "digest" then { length: job.body.bytesize, sha256: Digest::SHA256.hexdigest(job.body) }
  when "attempt" then job.attempt
  when "text" then job.text
  when "bytes" then job.body
  when "json" then { n: [1, nil, "café", true, 0.5], empty: {} }
  when "not json" then { n: [Object.new] }
  when "retry in 2.5" then raise Tidegate::Retry.new(2.5)
  when "retry" then raise Tidegate::Retry
  when "reject" then raise Tidegate::Reject, "no such image"
  when "fail"
    puts "stray"
    raise "why"
  when "fail with bytes" then raise "why \xff"
  when "progress"
    job.progress("40 %")
    job.progress
    job.progress({ left: [1] })
  when "print"
    puts "stray"
    system("echo stray, of a child")
    nil
  when "retire" then job.retire
  when "meet"
    # Two jobs wait for each other.
    MEETING << job
    2.times { MET << true } if MEETING.size == 2
    MET.pop
    "met"
  when "wait" then job.wait
  when "finish"
    begin
      job.wait
    rescue Tidegate::Stopped
      "finished"
    end
  when "sleep"
    job.wait(0.1)
    "slept"
  end
end

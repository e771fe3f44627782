# frozen_string_literal: true

# Runs the vectors of the protocol against the gem, each with a worker process of its own.
require "json"
require "minitest/autorun"
require "open3"
require "timeout"
require_relative "../lib/tidegate"

class TestVectors < Minitest::Test
  TIME_LIMIT = 30

  def self.vectors(file)
    File.readlines("#{__dir__}/../../vectors/#{file}", chomp: true).map { |line| JSON.parse(line) }
  end

  # Returns the log.
  def check(vector, environment = {})
    keys = %w[protocol concurrency].to_h { |key| ["TIDEGATE_#{key.upcase}", vector[key].to_s] }
    environment = keys.merge(environment)
    Open3.popen3(environment, RbConfig.ruby, "#{__dir__}/worker.rb") do |input, output, errors, worker|
      log = Thread.new { errors.read }
      Timeout.timeout(TIME_LIMIT) do
        vector["steps"].each do |step|
          if step["send"]
            unit, times = step.fetch("fill", ["", 0])
            input.puts(step["send"].sub("{fill}") { unit * times })
          elsif step["end"]
            input.close
          else
            expect(step["expect"], output)
          end
        end
        input.close
        assert_equal("", output.read, "there is output after the last answer")
        assert_predicate(worker.value, :success?)
        log.value
      end
    ensure
      Process.kill(:KILL, worker.pid) if worker.alive?
    end
  end

  def expect(expected, output)
    found = expected.map { JSON.parse(output.gets || "{}").compact }
    # Lines of one job have an order. Jobs have none among each other.
    place = ->(pair) { [pair[0]["slot"].to_i, pair[0]["id"].to_s, pair[1]] }
    in_order = ->(lines) { lines.each_with_index.sort_by(&place).map(&:first) }
    in_order.(expected.map(&:compact)).zip(in_order.(found)) do |wanted, line|
      # Any text that contains this.
      if wanted["error"].is_a?(Hash)
        assert_includes(line["error"].to_s, wanted["error"]["contains"])
        wanted = wanted.merge("error" => line["error"])
      end
      assert_equal(wanted, line)
    end
  end

  %w[version-1.jsonl version-2.jsonl].each do |file|
    vectors(file).each do |vector|
      define_method("test_version #{vector["protocol"]}: #{vector["case"]}") do
        log = check(vector)
        assert_includes(log, "stray\nstray, of a child\n") if vector["case"].include?("child processes")
      end
    end
  end

  def test_a_worker_may_take_fewer_jobs_than_the_pool_allows
    ready = { "ready" => true, "protocol" => 2, "concurrency" => 3 }
    check({ "protocol" => 2, "concurrency" => 4, "steps" => [{ "expect" => [ready] }] }, { "MOST" => "3" })
  end

  def test_a_body_that_is_not_json_is_rejected
    error = assert_raises(Tidegate::Reject) { Tidegate::Job.new({ "body" => "{" }).json }
    assert_includes(error.message, "the body is not JSON")
  end
end

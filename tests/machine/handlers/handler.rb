require File.join(ENV["SHIMS"], "tidegate.rb")

Tidegate.serve do |job, progress|
  puts "stray"
  system("echo stray, of a child")
  case job["bytes"].b
  when "reply" then "caf\u00e9 #{job["id"]} #{job["attempt"]} #{job["headers"]["n"]}"
  when "json" then { n: [1, nil, "caf\u00e9", true] }
  when "no json" then { n: [Object.new] }
  when "later" then raise Tidegate::Retry.new(2.5)
  when "never" then raise Tidegate::Reject, "no such image"
  when "fail" then raise "why \xff"
  when "\xff\n".b then "bytes"
  when "lines\n\u2028of\u0085text".b
    progress.("half")
    "lines"
  end
end

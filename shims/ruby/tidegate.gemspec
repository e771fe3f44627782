Gem::Specification.new do |spec|
  spec.name = "tidegate"
  spec.version = "2.0.0"
  spec.summary = "Serves the jobs of a tidegate pool of kind \"warm\", several at a time in threads"
  spec.authors = ["The authors of tidegate"]
  spec.license = "Apache-2.0"
  spec.required_ruby_version = ">= 3.0"
  spec.files = ["lib/tidegate.rb", "README.md"]
end

# Sidekiq on Redis: push_bulk, and the stock server (basic fetch) with one class of job.
#
# As a program: sidekiq.rb enqueue REDIS_SOCKET JOBS, pushes and prints what it took as muster-peers does. Required by
# the server (sidekiq -r): works until SIGTERM, then writes PEER_DONE and prints the same; its time is from its first job to
# its last. PEER_REDIS and PEER_JOBS say where and how many.
require "json"
require "sidekiq"

BATCH = 1000

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

def cpu
  Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID, :microsecond)
end

# What this process has done. Jobs run one at a time, whatever the number of threads: Ruby's lock.
module Tally
  @done = ("\0" * ENV.fetch("PEER_JOBS", "0").to_i).b
  @began = @ended = @cpu = nil

  def self.completed(job)
    @began ||= now
    @cpu ||= cpu
    @done.setbyte(job, @done.getbyte(job) + 1)
    @ended = now
  end

  def self.report
    File.binwrite(ENV.fetch("PEER_DONE"), @done)
    puts JSON.generate(began: @began || 0, ended: @ended || 0, cpu_us: @cpu ? cpu - @cpu : 0)
    $stdout.flush
  end
end

class Lock
  include Sidekiq::Worker
  sidekiq_options retry: false

  def perform(job, _batch)
    Tally.completed(job)
  end
end

if $PROGRAM_NAME == __FILE__
  _role, socket, jobs = ARGV
  Sidekiq.configure_client { |config| config.redis = { path: socket } }
  Sidekiq.redis(&:ping)
  began, used = now, cpu
  (0...jobs.to_i).each_slice(BATCH) do |some|
    Sidekiq::Client.push_bulk("class" => Lock, "args" => some.map { |n| [n, "00000000-0001-8000"] })
  end
  puts JSON.generate(began: began, ended: now, cpu_us: cpu - used)
else
  Sidekiq.configure_server do |config|
    config.redis = { path: ENV.fetch("PEER_REDIS") }
    config.logger.level = Logger::WARN # two lines a job otherwise
    config.on(:shutdown) { Tally.report }
  end
end

-- One request, over and over; what came back goes into a file as JSON. wrk counts every status above 399 and every
-- broken connection; there is no `response` function, since parsing bodies in Lua would cost the machine 20 µs each.
local function read(name)
  local file = assert(io.open(assert(os.getenv(name), name), 'rb'))
  local text = file:read('*a')
  file:close()
  return text
end

wrk.method = os.getenv('BENCH_METHOD')
for line in read('BENCH_HEADERS'):gmatch('[^\n]+') do
  local name, value = line:match('^(.-): (.*)$')
  wrk.headers[name] = value
end
if wrk.method ~= 'GET' then wrk.body = read('BENCH_BODY') end

local prefix = os.getenv('BENCH_KEYS')
local bodies = os.getenv('BENCH_BODIES')
local count = 0
if prefix then
  request = function()
    count = count + 1
    wrk.headers['Idempotency-Key'] = prefix .. count
    return wrk.format()
  end
elseif bodies then
  local lines = {}
  for line in io.lines(bodies) do lines[#lines + 1] = line end
  request = function()
    count = count + 1
    return wrk.format(nil, nil, nil, lines[count] or 'the prepared requests are used up')
  end
end

local function processor_seconds()
  local file = io.open('/proc/self/stat')
  if not file then return 0 end
  local rest = file:read('*a'):match('%) (.*)')
  file:close()
  local i, ticks = 0, 0
  for field in rest:gmatch('%S+') do
    i = i + 1
    if i == 12 or i == 13 then ticks = ticks + tonumber(field) end
  end
  return ticks / 100
end

done = function(summary, latency)
  local e = summary.errors
  local file = assert(io.open(os.getenv('BENCH_RESULT'), 'w'))
  file:write(string.format(
    '{"seconds":%.6f,"requests":%d,"statusErrors":%d,"socketErrors":%d,"timeouts":%d,"processorSeconds":%.2f,' ..
    '"p50":%.3f,"p90":%.3f,"p99":%.3f,"p999":%.3f,"max":%.3f}',
    summary.duration / 1e6, summary.requests, e.status, e.connect + e.read + e.write, e.timeout, processor_seconds(),
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, latency.max / 1e3))
  file:close()
end

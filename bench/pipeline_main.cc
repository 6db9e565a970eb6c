// M4: the pipeline alone. A producer fills the ring as fast as it empties; the log goes over TLS
// into an appliance's spool, is compressed, sealed and put into a directory store, and registered
// with a vault that only counts. Prints one JSON object.
//
//   pipeline_bench DIRECTORY [SECONDS] [RECORD_BYTES] [MB_PER_SECOND]
//
// With MB_PER_SECOND the producer is paced and the lag (time stored - time written) is what counts
// (M5).
#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "agent/capture_source.h"
#include "appliance/appliance.h"
#include "capture/capture_files.h"
#include "codec/compress.h"
#include "codec/crc32c.h"
#include "counting_vault.h"
#include "os/real.h"
#include "os/waiting.h"
#include "os/worker_pool.h"
#include "replica/segment.h"
#include "replicate/log_sender.h"
#include "store/directory_store.h"

namespace farshore {
namespace {

// Rows of a made-up table, half of each noise in hexadecimal: zstd -1 makes it 2 to 3 times
// smaller.
Bytes sample(size_t bytes) {
    static constexpr const char* kWords[] = {"order",   "customer", "invoice", "2026-03",
                                             "shipped", "pending",  "north",   "EUR",
                                             "total",   "warehouse"};
    Bytes out;
    out.reserve(bytes + 128);
    uint64_t x = 88172645463325252ull;
    for (uint64_t row = 1; out.size() < bytes; ++row) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        const std::string text =
            fmt::format("{}\t{}\t{:016x}{:08x}\t{}\t{}\t{}\n", row, kWords[x % 10], x,
                        static_cast<uint32_t>(x * 2654435761u), kWords[x / 16 % 10], x % 100000,
                        kWords[x / 256 % 10]);
        out.insert(out.end(), text.begin(), text.end());
    }
    out.resize(bytes);
    return out;
}

// The peer: zstd -1 of the same data in chunks of 64 KiB, on as many threads as the machine has.
double zstd_alone_mb_per_s(ByteView data) {
    RealClock clock;
    const size_t chunks = data.size() / kChunkBytes;
    WorkerPool pool(1);
    const int64_t begin_us = clock.steady_us();
    int rounds = 0;
    for (; clock.steady_us() - begin_us < 2'000'000; ++rounds) {
        pool.run(chunks, [&](size_t i) {
            thread_local Bytes out;
            out.clear();
            (void)compress(Compression::kZstd, data.subspan(i * kChunkBytes, kChunkBytes), out);
        });
    }
    return static_cast<double>(chunks * kChunkBytes) * rounds /
           static_cast<double>(clock.steady_us() - begin_us);
}

Status run(const std::string& directory, double seconds, uint32_t record_bytes, double mb_per_s) {
    RealClock clock;
    PosixFileSystem files;
    FS_TRY(files.make_directories(directory));
    FS_ASSIGN(auto authority, CertificateAuthority::create("bench", clock.now()));
    const auto identity = [&](const std::string& name) {
        return authority.issue_with_key({name, {"127.0.0.1"}, clock.now(), 1});
    };
    FS_ASSIGN(Credentials appliance_identity, identity("appliance"));
    FS_ASSIGN(Credentials agent_identity, identity("agent"));
    FS_ASSIGN(auto appliance_tls,
              TlsContext::make(authority.certificate_pem(), appliance_identity));
    FS_ASSIGN(auto agent_tls, TlsContext::make(authority.certificate_pem(), agent_identity));
    RealRandom random;
    FS_ASSIGN(auto store, DirectoryStore::open(files, random, {directory + "/store", true}));
    CountingVault vault(clock);
    ApplianceOptions appliance_options;
    appliance_options.name = "appliance";
    appliance_options.directory = directory + "/appliance";
    appliance_options.listen = "127.0.0.1:0";
    FS_ASSIGN(auto appliance, Appliance::start(appliance_options, appliance_tls, *store, vault));

    CaptureConfig config;
    config.item.raw = {7};
    config.shared_memory_path = "/dev/shm/farshore-bench-" + std::to_string(clock.steady_us());
    config.spill_path = directory + "/spill";
    config.dirty_map_path = directory + "/dirty";
    config.spill_bytes = 0;
    config.ring_bytes = 256ull << 20;
    config.disk_bytes = {64ull << 30};
    FS_ASSIGN(CaptureFiles tap_files, CaptureFiles::open(config, files));
    FS_ASSIGN(CaptureFiles agent_files, CaptureFiles::open(config, files));
    CaptureProducer::Options producer_options;
    producer_options.clock = &clock;
    producer_options.wake = real_wake();
    CaptureProducer producer(tap_files.header, producer_options);
    // Only the pipeline counts: the gap that every new log begins with is settled, and nothing
    // copied.
    producer.settle_gap();
    TapCommands commands(agent_files.header, real_wake());
    CaptureConsumer consumer(agent_files.header, nullptr, real_wake());
    TlsNetwork network(1);
    TlsDialer dialer(network, agent_tls);
    ThreadExecutor home("agent");
    PartyId instance{{1}};
    CaptureSource source(consumer,
                         {[&](const TapCommand& c) { return commands.post(c); },
                          [&](size_t slot) { return commands.take(slot); }},
                         false);
    auto sender = std::make_unique<LogSender>(home, clock, dialer, appliance->address(),
                                              config.item, instance, source);
    FS_TRY(home.run_sync([&] { sender->start(); }));

    const Bytes data = sample(64u << 20);
    std::atomic<bool> done{false};
    std::thread waker([&] {
        while (!done) {
            home.post([&] { sender->wake(); });
            pause_ms(1);
        }
    });
    const auto cpu_us = [] {
        rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000ll +
               usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    };
    const int64_t begin_us = clock.steady_us();
    const int64_t begin_cpu_us = cpu_us();
    uint64_t written = 0, dropped = 0, records = 0;
    Sequence last;
    while (clock.steady_us() - begin_us < static_cast<int64_t>(seconds * 1e6)) {
        if (mb_per_s > 0) {
            const double due = static_cast<double>(clock.steady_us() - begin_us) * mb_per_s;
            if (static_cast<double>(written) > due) {
                pause_ms(1);
                continue;
            }
        }
        const LogUsage usage = producer.usage();
        if (usage.ring_bytes + (8u << 20) > config.ring_bytes) {
            pause_ms(1);
            continue;
        }
        for (int i = 0; i < 16; ++i) {
            AppendRequest request;
            const size_t at = (records * record_bytes) % (data.size() - record_bytes);
            request.payload = ByteView(data).subspan(at, record_bytes);
            request.payload_crc = crc32c(request.payload);
            request.length_bytes = record_bytes;
            request.offset_bytes = (records * 7919 * record_bytes) % (60ull << 30) / 4096 * 4096;
            request.guest = true;
            const Appended appended = producer.append(request);
            if (appended.dropped) ++dropped;
            last = appended.sequence;
            written += record_bytes;
            ++records;
        }
    }
    const bool stored = wait_until(120'000, 2, [&] { return vault.stored() >= last; });
    const double elapsed = static_cast<double>(clock.steady_us() - begin_us) / 1e6;
    const double cpu = static_cast<double>(cpu_us() - begin_cpu_us) / 1e6;
    done = true;
    waker.join();
    FS_TRY(home.run_sync([&] { sender.reset(); }));
    home.stop();
    appliance.reset();
    (void)files.remove(config.shared_memory_path);
    if (!stored) return fail(Code::kTimeout, "the last record was not stored within two minutes");
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    fmt::print(
        "{{\"seconds\": {:.2f}, \"written_bytes\": {}, \"stored_bytes\": {}, \"records\": {}, "
        "\"dropped\": {}, \"mb_per_s\": {:.1f}, \"cpu_seconds\": {:.2f}, \"cpu_ns_per_byte\": "
        "{:.2f}, "
        "\"lag_p50_ms\": {:.1f}, \"lag_p99_ms\": {:.1f}, \"max_rss_mib\": {}, "
        "\"zstd_alone_mb_per_s\": {:.1f}}}\n",
        elapsed, written, vault.object_bytes(), records, dropped,
        static_cast<double>(written) / elapsed / 1e6, cpu, cpu * 1e9 / static_cast<double>(written),
        static_cast<double>(vault.lag_us(0.5)) / 1e3, static_cast<double>(vault.lag_us(0.99)) / 1e3,
        usage.ru_maxrss / 1024, zstd_alone_mb_per_s(data));
    return {};
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    if (argc < 2) {
        fmt::print(stderr, "usage: {} DIRECTORY [SECONDS] [RECORD_BYTES] [MB_PER_SECOND]\n",
                   argv[0]);
        return 64;
    }
    const double seconds = argc > 2 ? std::atof(argv[2]) : 10;
    const auto record_bytes = static_cast<uint32_t>(argc > 3 ? std::atoi(argv[3]) : 65536);
    const double mb_per_s = argc > 4 ? std::atof(argv[4]) : 0;
    const farshore::Status status = farshore::run(argv[1], seconds, record_bytes, mb_per_s);
    if (!status) {
        fmt::print(stderr, "{}\n", status.error().to_string());
        return 1;
    }
    return 0;
}

// farshore-nbd-front CONFIG: NBD over TLS before a server that listens on a unix socket alone.
// CONFIG is the path of a file of mode 0600 (nbd_front_loop.h); SIGTERM ends it.
#include <fmt/core.h>
#include <unistd.h>

#include "compute/nbd_front_loop.h"
#include "os/log.h"
#include "os/process.h"
#include "os/program_files.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr uint64_t kMaxLogBytes = 1u << 20;
constexpr size_t kMaxConfigBytes = 1u << 20;

Status run(const std::string& path, ShutdownSignals& signals) {
    PosixFileSystem files;
    FS_TRY(check_private_file(path));
    NbdFrontConfig config;
    {
        FS_ASSIGN(Bytes text, read_whole_file(files, path, kMaxConfigBytes));
        const Secret held(std::move(text));
        FS_ASSIGN(config, parse_nbd_front_config(held.reveal()));
    }
    // Here, since who started us may end before it could; by nobody else: a file has one writer.
    FS_ASSIGN(const ProcessKey self, key_of(::getpid()));
    FS_TRY(write_pid_file(files, nbd_front_file(config.run_directory, "pid"), self));
    FS_TRY(log::set_up({.file = nbd_front_file(config.run_directory, "log"),
                        .max_file_bytes = kMaxLogBytes,
                        .max_files = 1}));
    FS_ASSIGN(const auto gate, serve_nbd_front(config));
    (void)signals.wait();
    return {};
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    if (argc != 2) {
        fmt::print(stderr, "usage: farshore-nbd-front CONFIG\n");
        return 64;
    }
    farshore::ShutdownSignals signals;
    const farshore::Status done = farshore::run(argv[1], signals);
    if (done) return 0;
    fmt::print(stderr, "farshore-nbd-front: error: {}\n", done.error().to_string());
    return farshore::code_exit_status(done.error().code());
}

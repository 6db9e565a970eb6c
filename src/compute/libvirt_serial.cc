#include <fmt/core.h>

#include <array>
#include <atomic>
#include <mutex>
#include <optional>

#include "compute/libvirt_host.h"
#include "os/real.h"
#include "os/unix_door.h"

namespace farshore {

// Its parts are libvirt's event loop's; `mutex` keeps end() out of a callback's way.
struct SerialPort::Line : std::enable_shared_from_this<Line> {
    std::mutex mutex;
    std::atomic<bool> open = true;
    LibvirtStream stream;
    std::unique_ptr<File> log;
    uint64_t log_bytes = 0;
    std::optional<UnixDoor> door;
    int listening = -1, talking = -1;  // libvirt's watches

    using Held = std::shared_ptr<Line>;
    static void forget(void* opaque) { delete static_cast<Held*>(opaque); }

    // Watches a descriptor; the loop holds us for as long.
    int watch(int fd, void (Line::*then)(int events)) {
        struct Watched {
            Held line;
            void (Line::*then)(int);
        };
        auto watched = std::make_unique<Watched>(Watched{shared_from_this(), then});
        const int number = virEventAddHandle(
            fd, VIR_EVENT_HANDLE_READABLE,
            [](int, int, int events, void* opaque) {
                const Watched here = *static_cast<Watched*>(opaque);
                const std::lock_guard lock(here.line->mutex);
                if (here.line->open) (here.line.get()->*here.then)(events);
            },
            watched.get(), [](void* opaque) { delete static_cast<Watched*>(opaque); });
        if (number >= 0) (void)watched.release();
        return number;
    }

    void end() {
        if (!open.exchange(false)) return;
        if (stream) (void)virStreamEventRemoveCallback(stream.get());
        hang_up();
        if (listening >= 0) (void)virEventRemoveHandle(listening);
        listening = -1;
        door.reset();
    }
    void hang_up() {
        if (talking >= 0) (void)virEventRemoveHandle(talking);
        talking = -1;
        if (door) door->send_away();
    }

    void hear(int events) {
        std::array<char, 8192> bytes;
        while (true) {
            const int n = virStreamRecv(stream.get(), bytes.data(), bytes.size());
            if (n == -2) break;  // nothing more just now
            if (n <= 0) return end();
            const ByteView words(reinterpret_cast<const uint8_t*>(bytes.data()),
                                 static_cast<size_t>(n));
            // What cannot be written is not heard: a full disk here is not the machine's matter.
            if (log->write_at(log_bytes, words)) log_bytes += words.size();
            // Nor does it wait for somebody who does not read.
            door->say(words);
        }
        if (events & (VIR_STREAM_EVENT_ERROR | VIR_STREAM_EVENT_HANGUP)) end();
    }
    void take(int) {
        if (door->let_in()) talking = watch(door->client_fd(), &Line::say);
    }
    void say(int) {
        std::array<uint8_t, 1024> bytes;
        const auto n = door->hear(bytes);
        if (!n) return hang_up();
        // What the port does not take at once is lost, as on a line without flow control.
        if (*n > 0)
            (void)virStreamSend(stream.get(), reinterpret_cast<const char*>(bytes.data()), *n);
    }
};

Result<std::unique_ptr<SerialPort>> SerialPort::open(const LibvirtHost& host, virDomain* domain,
                                                     const std::string& log_path,
                                                     const std::string& socket_path) {
    auto line = std::make_shared<Line>();
    PosixFileSystem files;
    FS_ASSIGN(line->log, files.open(log_path, OpenMode::kCreate));
    FS_ASSIGN(line->log_bytes, line->log->size());
    FS_ASSIGN(line->door, UnixDoor::make(socket_path));
    virConnect* const connection = virDomainGetConnect(domain);  // the domain's own reference
    line->stream.reset(virStreamNew(connection, VIR_STREAM_NONBLOCK));
    if (!line->stream ||
        virDomainOpenConsole(domain, nullptr, line->stream.get(), VIR_DOMAIN_CONSOLE_SAFE) != 0)
        return fail(host.error("the serial port"));
    std::unique_ptr<SerialPort> port(new SerialPort());
    port->line_ = line;
    std::unique_lock lock(line->mutex);
    line->listening = line->watch(line->door->listening_fd(), &Line::take);
    auto held = std::make_unique<Line::Held>(line);
    if (line->listening < 0 ||
        virStreamEventAddCallback(
            line->stream.get(),
            VIR_STREAM_EVENT_READABLE | VIR_STREAM_EVENT_ERROR | VIR_STREAM_EVENT_HANGUP,
            [](virStreamPtr, int events, void* opaque) {
                const Line::Held here = *static_cast<Line::Held*>(opaque);
                const std::lock_guard hold(here->mutex);
                if (here->open) here->hear(events);
            },
            held.get(), &Line::forget) != 0) {
        Error error = host.error("the serial port");
        line->end();
        lock.unlock();
        (void)virStreamAbort(line->stream.get());  // else the host keeps the port for us
        return fail(std::move(error));
    }
    (void)held.release();
    return port;
}

SerialPort::~SerialPort() {
    {
        const std::lock_guard lock(line_->mutex);
        line_->end();
    }
    // Not under the lock, for which libvirt's loop may wait: this asks the host. Without meaning
    // for a stream that has ended.
    (void)virStreamAbort(line_->stream.get());
}

bool SerialPort::is_open() const { return line_->open; }

}  // namespace farshore

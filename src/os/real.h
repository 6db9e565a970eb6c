// The real seams of base/seams.h, but for the network (tls_connection.h): clock, random numbers,
// an executor that is a thread, and the file system of the kernel.
#pragma once

#include <memory>
#include <string>
#include <type_traits>

#include "base/seams.h"

namespace farshore {

class RealClock final : public Clock {
  public:
    TimePoint now() const override;
    int64_t steady_us() const override;
};

// The kernel's generator through OpenSSL's. A machine that cannot give random numbers cannot run
// us: failure ends the process.
class RealRandom final : public Random {
  public:
    void fill(MutableByteView out) override;
};

// An executor that is one thread with a name (of at most 15 characters shown by the system).
// Timers run on the steady clock. The queue has no bound of its own: who posts bounds what it
// posts.
//
// Ended by stop() or the destructor, from another thread than its own: the task that runs is waited
// for, the others are destroyed without being run, later posts are dropped.
class ThreadExecutor final : public Executor {
  public:
    // With `nice` its thread gives way to others, as nice(1) says; that it can't is no error.
    explicit ThreadExecutor(const std::string& name, int nice = 0);
    ~ThreadExecutor() override;
    ThreadExecutor(const ThreadExecutor&) = delete;
    ThreadExecutor& operator=(const ThreadExecutor&) = delete;

    void post(Task task) override;
    TimerId post_after_us(int64_t delay_us, Task task) override;
    void cancel(TimerId timer) override;

    void stop();
    bool on_own_thread() const;
    // Runs `task` on the executor and waits for its end; directly when already there. kCancelled
    // when the executor was stopped first: then the task did not and will not run.
    Status run_sync(const Task& task);
    // The same for a function that gives a Status or a Result.
    template <typename Function>
    requires(!std::is_void_v<std::invoke_result_t<Function>>)
        std::invoke_result_t<Function> call_sync(Function function) {
        std::invoke_result_t<Function> result = fail(Code::kCancelled, "the executor has ended");
        FS_TRY(run_sync([&] { result = function(); }));
        return result;
    }

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// The kernel's file system. Files are made with mode 0600 and directories with 0700: what Farshore
// keeps is the content of other people's disks. Symbolic links are followed.
// Errors beyond those of the seam: kForbidden (rights, read-only), kLimitReached (descriptors),
// kTooLarge (file size limit), kInvalidArgument (a directory opened as a file).
class PosixFileSystem final : public FileSystem {
  public:
    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
    // With O_DIRECT where the file system has it: see stream_file.h.
    Result<std::unique_ptr<File>> open_stream(const std::string& path, OpenMode mode) override;
    // An empty directory is removed as well.
    Status remove(const std::string& path) override;
    Status rename(const std::string& from, const std::string& to) override;
    Status link(const std::string& from, const std::string& to) override;
    Status make_directories(const std::string& path) override;
    Status sync_directory(const std::string& path) override;
    Result<std::vector<std::string>> list(const std::string& path) override;
    Result<bool> exists(const std::string& path) override;
    Result<uint64_t> free_bytes(const std::string& path) override;

    // Permission bits, e.g. 0644.
    Status set_mode(const std::string& path, unsigned mode);
};

// The whole file; kTooLarge when it has more than `limit_bytes`.
Result<Bytes> read_whole_file(FileSystem& files, const std::string& path,
                              size_t limit_bytes = 64u << 20);

enum class FileAccess : uint8_t {
    kPrivate,  // 0600: secrets and state
    kPublic,   // 0644: what other users' programs read
};

// Replaces `path` so that after a crash at any instant it holds the old bytes or the new ones, and
// the new ones once this has returned. Uses `path` + ".tmp": one writer of a path at a time.
Status write_file_durably(FileSystem& files, const std::string& path, ByteView bytes,
                          FileAccess access = FileAccess::kPrivate);

// The directory part of a path: "." when it has none, "/" for the root.
std::string parent_directory(const std::string& path);

}  // namespace farshore

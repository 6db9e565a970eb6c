#include "block/nbd_device.h"

#include <fmt/core.h>
#include <libnbd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>

namespace farshore {
namespace {

struct CloseHandle {
    void operator()(struct nbd_handle* handle) const { nbd_close(handle); }
};
using Handle = std::unique_ptr<struct nbd_handle, CloseHandle>;

class NbdDevice final : public BlockDevice {
  public:
    explicit NbdDevice(NbdDeviceOptions options)
        : options_(std::move(options)), size_bytes_(options_.expect_bytes) {}

    // Learns the size.
    Status connect_first() {
        auto handle = connect();
        if (!handle) return fail(handle.error());
        const int64_t size = nbd_get_size(handle->get());
        if (size <= 0) return failed("ask for the size");
        size_bytes_ = static_cast<uint64_t>(size);
        idle_.push_back(std::move(*handle));
        made_ = 1;
        return {};
    }

    uint64_t size_bytes() const override { return size_bytes_; }
    bool read_only() const override { return !options_.writable; }

    Status read(uint64_t offset, MutableByteView out) override {
        FS_TRY(check(offset, out.size(), false));
        return with_handle([&](struct nbd_handle* nbd) -> Status {
            const int64_t block =
                std::max<int64_t>(1, nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM));
            while (!out.empty()) {
                const auto unit = static_cast<uint64_t>(block);
                const uint64_t before = offset % unit;
                const size_t n = std::min<size_t>(out.size(), kRequestBytes);
                uint64_t end = (offset + n + unit - 1) / unit * unit;
                end = std::min(end, size_bytes_);
                if (before == 0 && end == offset + n) {
                    if (nbd_pread(nbd, out.data(), n, offset, 0) != 0) return failed("read");
                } else {
                    Bytes around(end - (offset - before));
                    if (nbd_pread(nbd, around.data(), around.size(), offset - before, 0) != 0)
                        return failed("read");
                    std::copy_n(around.begin() + static_cast<ptrdiff_t>(before), n, out.begin());
                }
                out = out.subspan(n);
                offset += n;
            }
            return {};
        });
    }
    Status write(uint64_t offset, ByteView data) override {
        FS_TRY(check(offset, data.size(), true));
        return with_handle([&](struct nbd_handle* nbd) -> Status {
            while (!data.empty()) {
                const size_t n = std::min<size_t>(data.size(), kRequestBytes);
                if (nbd_pwrite(nbd, data.data(), n, offset, 0) != 0) return failed("write");
                data = data.subspan(n);
                offset += n;
            }
            return {};
        });
    }
    Status zero(uint64_t offset, uint64_t length, bool may_unmap) override {
        FS_TRY(check(offset, length, true));
        return with_handle([&](struct nbd_handle* nbd) -> Status {
            const uint32_t flags = may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
            while (length > 0) {
                const uint64_t n = std::min<uint64_t>(length, 1u << 30);
                if (nbd_zero(nbd, n, offset, flags) != 0) return failed("zero");
                offset += n;
                length -= n;
            }
            return {};
        });
    }
    // A trimmed range need not read as zeroes in NBD; ours must.
    Status discard(uint64_t offset, uint64_t length) override { return zero(offset, length, true); }
    Status flush() override {
        if (!options_.writable) return {};
        return with_handle([&](struct nbd_handle* nbd) -> Status {
            if (nbd_can_flush(nbd) == 1 && nbd_flush(nbd, 0) != 0) return failed("flush");
            return {};
        });
    }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        FS_TRY(check(offset, length, false));
        std::vector<BlockExtent> found;
        auto status = with_handle([&](struct nbd_handle* nbd) -> Status {
            if (nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1) return {};
            const int64_t block =
                std::max<int64_t>(1, nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM));
            const uint64_t from =
                offset / static_cast<uint64_t>(block) * static_cast<uint64_t>(block);
            // A 32-bit length on the wire; the answer may be shorter anyway.
            const uint64_t ask = std::min<uint64_t>(offset + length - from, 2ull << 30);
            Answer answer{&found, from, offset, offset + length};
            nbd_extent_callback callback{};
            callback.callback = &NbdDevice::on_extents;
            callback.user_data = &answer;
            const uint64_t whole =
                std::min((ask + static_cast<uint64_t>(block) - 1) / static_cast<uint64_t>(block) *
                             static_cast<uint64_t>(block),
                         size_bytes_ - from);
            if (nbd_block_status(nbd, whole, from, callback, 0) != 0)
                return failed("ask for extents");
            return {};
        });
        if (!status) return fail(status.error());
        const uint64_t covered =
            found.empty() ? offset : found.back().offset_bytes + found.back().length_bytes;
        // What the server did not say anything about may hold data.
        if (covered < offset + length)
            found.push_back({covered, offset + length - covered, false, false});
        return found;
    }

  private:
    static constexpr size_t kRequestBytes = 8u << 20;
    struct Answer {
        std::vector<BlockExtent>* out;
        uint64_t at;
        uint64_t from;
        uint64_t end;
    };
    static int on_extents(void* user, const char* context, uint64_t, uint32_t* entries,
                          size_t count, int*) {
        auto& answer = *static_cast<Answer*>(user);
        if (std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION) return 0;
        for (size_t i = 0; i + 1 < count; i += 2) {
            const uint64_t from = std::max(answer.at, answer.from);
            answer.at += entries[i];
            const uint64_t end = std::min(answer.at, answer.end);
            if (end <= from) continue;
            answer.out->push_back(
                {from, end - from, (entries[i + 1] & 1) != 0, (entries[i + 1] & 2) != 0});
        }
        return 0;
    }

    Status check(uint64_t offset, uint64_t length, bool changes) const {
        if (offset > size_bytes_ || length > size_bytes_ - offset)
            return fail(Code::kInvalidArgument, fmt::format("bytes {} to {} of an NBD export of {}",
                                                            offset, offset + length, size_bytes_));
        if (changes && !options_.writable)
            return fail(Code::kForbidden, "the NBD export is used for reading only");
        return {};
    }

    tl::unexpected<Error> failed(std::string_view what) const {
        const int error_number = nbd_get_errno();
        const char* said = nbd_get_error();
        const std::string words =
            fmt::format("{} of '{}': {}", what, options_.uri, said != nullptr ? said : "no reason");
        if (error_number == ENOSPC || error_number == EIO || error_number == EINVAL)
            return fail_errno(error_number, words);
        return fail(Code::kConnectionLost, words);
    }

    Result<Handle> connect() {
        Handle handle(nbd_create());
        if (!handle) return failed("prepare a connection");
        nbd_add_meta_context(handle.get(), LIBNBD_CONTEXT_BASE_ALLOCATION);
        if (nbd_connect_uri(handle.get(), options_.uri.c_str()) != 0) return failed("connect");
        const int64_t size = nbd_get_size(handle.get());
        if (options_.expect_bytes != 0 && size >= 0 &&
            static_cast<uint64_t>(size) != options_.expect_bytes)
            return fail(Code::kDiskChanged,
                        fmt::format("'{}' has {} bytes, {} were expected", options_.uri, size,
                                    options_.expect_bytes),
                        "disable and enable the protection of this machine");
        return handle;
    }

    template <typename Use>
    Status with_handle(Use use) {
        Handle handle;
        {
            std::unique_lock lock(mutex_);
            freed_.wait(lock, [&] { return !idle_.empty() || made_ < options_.connections; });
            if (!idle_.empty()) {
                handle = std::move(idle_.back());
                idle_.pop_back();
            } else {
                ++made_;
            }
        }
        Status status;
        if (!handle) {
            auto connected = connect();
            if (connected)
                handle = std::move(*connected);
            else
                status = fail(connected.error());
        }
        if (status) status = use(handle.get());
        const bool good = handle && nbd_aio_is_ready(handle.get()) == 1;
        {
            std::lock_guard lock(mutex_);
            if (good)
                idle_.push_back(std::move(handle));
            else
                --made_;
        }
        freed_.notify_one();
        return status;
    }

    const NbdDeviceOptions options_;
    uint64_t size_bytes_;
    std::mutex mutex_;
    std::condition_variable freed_;
    std::vector<Handle> idle_;
    size_t made_ = 0;
};

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_nbd_device(NbdDeviceOptions options) {
    const bool lazy = options.expect_bytes != 0;
    auto device = std::make_unique<NbdDevice>(std::move(options));
    if (!lazy) FS_TRY(device->connect_first());
    return std::unique_ptr<BlockDevice>(std::move(device));
}

}  // namespace farshore

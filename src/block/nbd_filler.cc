#include "block/nbd_filler.h"

#include <fmt/core.h>
#include <libnbd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <vector>

namespace farshore {
namespace {

struct CloseHandle {
    void operator()(struct nbd_handle* handle) const { nbd_close(handle); }
};

tl::unexpected<Error> failed(std::string_view what) {
    const int error_number = nbd_get_errno();
    const char* said = nbd_get_error();
    const std::string words = fmt::format("{}: {}", what, said != nullptr ? said : "no reason");
    if (error_number == ENOSPC || error_number == EIO || error_number == EINVAL)
        return fail_errno(error_number, words);
    return fail(Code::kConnectionLost, words);
}

class Filler final : public NbdFiller {
  public:
    Status connect(const std::string& uri) {
        handle_.reset(nbd_create());
        if (handle_) nbd_add_meta_context(handle_.get(), LIBNBD_CONTEXT_BASE_ALLOCATION);
        if (!handle_ || nbd_connect_uri(handle_.get(), uri.c_str()) != 0)
            return failed("connect to the machine's disks");
        if (nbd_can_cache(handle_.get()) != 1)
            return fail(Code::kUnsupported, "whoever serves the machine's disks cannot fill them",
                        "it is an older one: shut the machine down and start it again");
        const int64_t size = nbd_get_size(handle_.get());
        if (size < 0) return failed("ask for the size");
        size_bytes_ = static_cast<uint64_t>(size);
        return {};
    }

    uint64_t size_bytes() const override { return size_bytes_; }
    size_t under_way() const override { return cookies_.size(); }

    Status ask(uint64_t offset, uint32_t length) override {
        return begun(nbd_aio_cache(handle_.get(), length, offset, nbd_completion_callback{}, 0));
    }
    Status ask_zero_ranges(uint64_t offset, uint64_t length) override {
        zero_.clear();
        if (nbd_can_meta_context(handle_.get(), LIBNBD_CONTEXT_BASE_ALLOCATION) != 1) return {};
        at_ = offset;
        end_ = offset + length;
        nbd_extent_callback callback{};
        callback.callback = &Filler::on_extents;
        callback.user_data = this;
        return begun(nbd_aio_block_status(handle_.get(), length, offset, callback,
                                          nbd_completion_callback{}, 0));
    }
    std::vector<Range> zero_ranges() override { return std::move(zero_); }
    Status ask_flush() override {
        return begun(nbd_aio_flush(handle_.get(), nbd_completion_callback{}, 0));
    }

    Status wait(int timeout_ms) override {
        if (cookies_.empty()) return {};
        if (nbd_poll(handle_.get(), timeout_ms) < 0) return failed("ask for the machine's disks");
        Status first;
        std::erase_if(cookies_, [&](uint64_t cookie) {
            const int done = nbd_aio_command_completed(handle_.get(), cookie);
            if (done < 0 && first) first = failed("fill the machine's disk");
            return done != 0;
        });
        return first;
    }

  private:
    static int on_extents(void* user, const char* context, uint64_t, uint32_t* entries,
                          size_t count, int*) {
        auto& filler = *static_cast<Filler*>(user);
        if (std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION) return 0;
        for (size_t i = 0; i + 1 < count && filler.at_ < filler.end_; i += 2) {
            const uint64_t length = std::min<uint64_t>(entries[i], filler.end_ - filler.at_);
            if ((entries[i + 1] & LIBNBD_STATE_ZERO) != 0 && length > 0)
                filler.zero_.push_back({filler.at_, length});
            filler.at_ += length;
        }
        return 0;
    }

    Status begun(int64_t cookie) {
        if (cookie < 0) return failed("ask for the machine's disks");
        cookies_.push_back(static_cast<uint64_t>(cookie));
        return {};
    }

    std::unique_ptr<struct nbd_handle, CloseHandle> handle_;
    std::vector<uint64_t> cookies_;
    std::vector<Range> zero_;
    uint64_t at_ = 0, end_ = 0;  // of the question for them
    uint64_t size_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<NbdFiller>> NbdFiller::connect(const std::string& uri) {
    auto filler = std::make_unique<Filler>();
    FS_TRY(filler->connect(uri));
    return std::unique_ptr<NbdFiller>(std::move(filler));
}

}  // namespace farshore

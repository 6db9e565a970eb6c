#include "vault/azure_image.h"

#include <fmt/core.h>

#include <algorithm>
#include <pugixml.hpp>

#include "block/vhd_footer.h"
#include "store/azure_page_blob.h"
#include "store/open_azure.h"
#include "store/open_store.h"

namespace farshore {
namespace {

constexpr uint64_t kWholeBytes = 1u << 20;  // what a managed disk's size is a multiple of
constexpr size_t kMaxListBytes = 16u << 20;

uint64_t whole(uint64_t bytes) { return (bytes + kWholeBytes - 1) / kWholeBytes * kWholeBytes; }

// The way to the blob.
struct Place {
    AzureBlobUrl url;
    std::unique_ptr<AzureClient> client;

    static Result<Place> of(const DiskImageOptions& options) {
        Place place;
        FS_ASSIGN(place.url, parse_azure_blob_url(options.target.path));
        FS_ASSIGN(StoreSettings settings,
                  load_store_settings(
                      *options.files,
                      fmt::format("azure://{}/{}", place.url.account, place.url.container),
                      options.settings_file));
        settings.endpoint = place.url.endpoint;
        FS_ASSIGN(AzureAccess access, azure_access_of(*options.files, settings));
        FS_ASSIGN(place.client, AzureClient::make(std::move(access), *options.clock));
        return place;
    }
    Result<std::unique_ptr<AzurePageBlob>> open(const DiskImageOptions& options) {
        return AzurePageBlob::open(*client, *options.clock, *options.random, url.blob,
                                   {.retry = {}, .sleep = sleep_for_retry});
    }
};

// Which pages hold anything, of a range: the service's own list.
Result<std::vector<BlockExtent>> parse_page_list(std::string_view xml, uint64_t offset,
                                                 uint64_t length) {
    pugi::xml_document document;
    if (xml.size() > kMaxListBytes || !document.load_buffer(xml.data(), xml.size()) ||
        !document.child("PageList"))
        return fail(Code::kMalformed, "the list of a page blob's pages is none",
                    "see that the URL is that of a Blob service");
    std::vector<BlockExtent> found;
    const uint64_t end = offset + length;
    const auto add = [&](uint64_t until, bool zero) {
        until = std::min(until, end);
        if (until > offset) found.push_back({offset, until - offset, zero, zero});
        offset = std::max(offset, until);
    };
    for (const pugi::xml_node range : document.child("PageList").children("PageRange")) {
        const uint64_t from = range.child("Start").text().as_ullong();
        const uint64_t last = range.child("End").text().as_ullong();
        if (last < from)
            return fail(Code::kMalformed, "the list of a page blob's pages is out of order");
        add(from, true);
        add(last + 1, false);
    }
    add(end, true);
    return found;
}

class BlobDevice final : public BlockDevice {
  public:
    BlobDevice(AzureClient& client, std::unique_ptr<AzurePageBlob> blob, Clock& clock,
               Random& random)
        : client_(client), blob_(std::move(blob)), clock_(clock), random_(random) {}

    uint64_t size_bytes() const override { return blob_->size_bytes() - kVhdFooterBytes; }
    bool read_only() const override { return false; }
    Status read(uint64_t offset, MutableByteView out) override {
        const uint64_t from = offset / kAzurePageBytes * kAzurePageBytes;
        const uint64_t to = pages(offset + out.size());
        FS_ASSIGN(const Bytes bytes, blob_->read(from, to - from));
        std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset - from), out.size(), out.begin());
        return {};
    }
    // Begins at a page; what the last page has behind it becomes zeroes.
    Status write(uint64_t offset, ByteView data) override {
        if (data.size() % kAzurePageBytes == 0) return blob_->write(offset, data);
        Bytes padded = to_bytes(data);
        padded.resize(pages(data.size()));
        return blob_->write(offset, padded);
    }
    Status zero(uint64_t, uint64_t, bool) override { return no_such_thing(); }
    Status discard(uint64_t, uint64_t) override { return no_such_thing(); }
    Status flush() override { return {}; }  // what the service has acknowledged is durable
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        const uint64_t from = offset / kAzurePageBytes * kAzurePageBytes;
        const auto list = repeat_call(clock_, random_, sleep_for_retry, RetryPolicy{}, [&] {
            return client_.call(
                {.blob = blob_->name(),
                 .query = {{"comp", "pagelist"}},
                 .headers = {{"x-ms-range",
                              fmt::format("bytes={}-{}", from, pages(offset + length) - 1)}},
                 .doing = "list the pages of " + blob_->name()});
        });
        if (!list) return fail(list.error());
        return parse_page_list(list->body, offset, length);
    }

    AzurePageBlob& blob() { return *blob_; }

  private:
    static uint64_t pages(uint64_t bytes) {
        return (bytes + kAzurePageBytes - 1) / kAzurePageBytes * kAzurePageBytes;
    }
    static Status no_such_thing() {
        return fail(Code::kUnsupported, "a new page blob holds zeroes already");
    }

    AzureClient& client_;
    const std::unique_ptr<AzurePageBlob> blob_;
    Clock& clock_;
    Random& random_;
};

class AzureImage final : public DiskImage {
  public:
    AzureImage(const DiskImageOptions& options, Place place)
        : options_(options), place_(std::move(place)) {}

    Status begin(bool resume) {
        const uint64_t bytes = whole(options_.disk_bytes) + kVhdFooterBytes;
        std::unique_ptr<AzurePageBlob> blob;
        if (resume) {
            FS_ASSIGN(blob, place_.open(options_));
            if (blob->size_bytes() != bytes)
                return fail(Code::kNotFound, place_.url.blob + " is another image");
        } else {
            if (options_.replace_existing) {
                auto old = place_.open(options_);
                if (old) FS_TRY((*old)->remove());
                if (!old && old.error().code() != Code::kNotFound) return fail(old.error());
            }
            FS_ASSIGN(blob, AzurePageBlob::create(*place_.client, *options_.clock, *options_.random,
                                                  place_.url.blob, bytes,
                                                  {.retry = {}, .sleep = sleep_for_retry}));
        }
        device_ = std::make_unique<BlobDevice>(*place_.client, std::move(blob), *options_.clock,
                                               *options_.random);
        return {};
    }

    BlockDevice& device() override { return *device_; }
    bool blank() const override { return true; }
    Status reopen() override { return {}; }
    Status finish() override {
        std::array<uint8_t, 16> id;
        options_.random->fill(id);
        const uint64_t bytes = whole(options_.disk_bytes);
        return device_->blob().write(bytes, fixed_vhd_footer(bytes, options_.clock->now(), id));
    }

  private:
    const DiskImageOptions options_;
    Place place_;
    std::unique_ptr<BlobDevice> device_;
};

}  // namespace

Status check_azure_image(const DiskImageOptions& options) {
    FS_ASSIGN(Place place, Place::of(options));
    if (!place.url.sas.reveal().empty())
        return fail(Code::kInvalidArgument, "the blob's URL holds a signature",
                    "put it into the settings' file as `sas`, and give its path with --settings");
    if (whole(options.disk_bytes) + kVhdFooterBytes > kAzureMaxPageBlobBytes)
        return fail(Code::kTooLarge, "a page blob holds at most 8 TiB");
    auto there = place.open(options);
    if (there && !options.replace_existing)
        return fail(Code::kAlreadyExists, fmt::format("there is a blob {}", place.url.blob),
                    "remove it, name another one, or replace what is there with --force");
    if (!there && there.error().code() != Code::kNotFound) return fail(there.error());
    return {};
}

Result<std::unique_ptr<DiskImage>> open_azure_image(const DiskImageOptions& options, bool resume) {
    FS_ASSIGN(Place place, Place::of(options));
    auto image = std::make_unique<AzureImage>(options, std::move(place));
    FS_TRY(image->begin(resume));
    return image;
}

Status discard_azure_image(const DiskImageOptions& options) {
    FS_ASSIGN(Place place, Place::of(options));
    auto there = place.open(options);
    if (there) return (*there)->remove();
    return there.error().code() == Code::kNotFound ? Status() : fail(there.error());
}

}  // namespace farshore

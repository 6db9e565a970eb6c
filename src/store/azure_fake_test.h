// What the tests of Azure's classes share: a Blob service in memory that can be told to lie, and
// times and random numbers that are the test's.
#pragma once

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "store/azure_store.h"
#include "store/fake_http_test.h"

namespace farshore {

class SetClock final : public Clock {
  public:
    TimePoint now() const override { return {at_us}; }
    int64_t steady_us() const override { return at_us; }
    std::atomic<int64_t> at_us{1'700'000'000'000'000};
};

class CountedRandom final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_{7};
};

// A container with the calls that AzureStore makes. Lists in pages of `page` blobs at most.
class FakeBlobs {
  public:
    FakeBlobs() : http_([this](const FakeRequest& request) { return answer(request); }) {}

    // Answers instead of the service when it gives something.
    std::function<std::optional<FakeAnswer>(const FakeRequest&)> instead;
    // Changes what the service answered.
    std::function<void(const FakeRequest&, FakeAnswer&)> afterwards;
    std::map<std::string, std::string> blobs;
    size_t page = 5000;
    bool marker_is_next = true;  // as Azure's; else the last name of the page before, as Azurite's
    int listings = 0;
    int64_t now_us = 1'700'000'000'000'000;

    FakeHttp& http() { return http_; }
    AzureAccess access() {
        AzureAccess access;
        access.account = "acct";
        access.container = "box";
        access.endpoint = http_.url();
        access.account_key = Secret(as_bytes("AAECAw=="));
        access.timeout_us = 2'000'000;
        return access;
    }
    std::vector<std::string> headers(const std::string& more = "") const {
        std::vector<std::string> out = {"x-ms-request-id: 1", "x-ms-version: 2023-11-03",
                                        "Date: " + to_http_date({now_us})};
        if (!more.empty()) out.push_back(more);
        return out;
    }
    FakeAnswer error(int status, const std::string& code, bool with_body = true,
                     const std::string& detail = "") const {
        return FakeAnswer::of(status, headers("x-ms-error-code: " + code),
                              with_body ? "<?xml version=\"1.0\"?><Error><Code>" + code +
                                              "</Code><Message>Words.\nTime:1</Message>" + detail +
                                              "</Error>"
                                        : "");
    }

  private:
    FakeAnswer answer(const FakeRequest& request) {
        if (instead)
            if (auto lie = instead(request)) return *lie;
        FakeAnswer truth = serve(request);
        if (afterwards) afterwards(request, truth);
        return truth;
    }
    FakeAnswer serve(const FakeRequest& request) {
        HttpRequest parsed;
        parsed.target = request.target;
        FS_CHECK(split_target(parsed));
        if (parsed.query.contains("restype")) return list(parsed);
        const std::string name = parsed.path.substr(std::string("/box/").size());
        const auto found = blobs.find(name);
        if (request.method == "PUT") {
            if (found != blobs.end()) return error(409, "BlobAlreadyExists");
            if (request.header("content-md5") !=
                (request.body.empty() ? "" : content_md5(as_bytes(request.body))))
                return error(400, "Md5Mismatch");
            blobs[name] = request.body;
            return FakeAnswer::of(
                201, headers("Content-MD5: " + content_md5(as_bytes(request.body))), "");
        }
        if (found == blobs.end()) return error(404, "BlobNotFound", request.method != "HEAD");
        if (request.method == "DELETE") {
            blobs.erase(found);
            return FakeAnswer::of(202, headers(), "");
        }
        const std::string& data = found->second;
        if (request.method == "HEAD") {
            FakeAnswer head = FakeAnswer::of(
                200, headers("Content-Length: " + std::to_string(data.size())), "", false);
            head.close = false;
            return head;
        }
        if (const std::string range = request.header("x-ms-range"); !range.empty()) {
            const size_t from = std::stoul(range.substr(6));
            const size_t last =
                std::min(std::stoul(range.substr(range.find('-') + 1)), data.size() - 1);
            if (from >= data.size()) return error(416, "InvalidRange");
            return FakeAnswer::of(
                206, headers(fmt::format("Content-Range: bytes {}-{}/{}", from, last, data.size())),
                data.substr(from, last - from + 1));
        }
        return FakeAnswer::of(200, headers("Content-MD5: " + content_md5(as_bytes(data))), data);
    }
    FakeAnswer list(const HttpRequest& request) {
        ++listings;
        const auto value = [&](const char* name) {
            const auto found = request.query.find(name);
            return found == request.query.end() ? std::string() : found->second;
        };
        const std::string prefix = value("prefix"), marker = value("marker");
        const size_t most = std::min<size_t>(page, std::stoul(value("maxresults")));
        std::string items, next, last;
        size_t count = 0;
        for (const auto& [name, data] : blobs) {
            if (!name.starts_with(prefix)) continue;
            if (marker_is_next ? name < marker : name <= marker) continue;
            if (count++ == most) {
                next = marker_is_next ? name : last;
                break;
            }
            items += fmt::format(
                "<Blob><Name>{}</Name><Properties><Content-Length>{}</Content-Length></Properties>"
                "</Blob>",
                name, data.size());
            last = name;
        }
        return FakeAnswer::of(200, headers(),
                              "<?xml version=\"1.0\"?><EnumerationResults><Blobs>" + items +
                                  "</Blobs><NextMarker>" + next +
                                  "</NextMarker></EnumerationResults>");
    }

    FakeHttp http_;
};

}  // namespace farshore

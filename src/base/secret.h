// A key or password that wipes itself and cannot be formatted or logged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"

namespace farshore {

class Secret {
  public:
    Secret() = default;
    explicit Secret(ByteView bytes) : bytes_(bytes.begin(), bytes.end()) {}
    explicit Secret(Bytes&& bytes) : bytes_(std::move(bytes)) {}
    Secret(const Secret&) = default;
    Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) {}
    Secret& operator=(const Secret& other) {
        if (this != &other) {
            wipe();
            bytes_ = other.bytes_;
        }
        return *this;
    }
    Secret& operator=(Secret&& other) noexcept {
        wipe();
        bytes_ = std::move(other.bytes_);
        return *this;
    }
    ~Secret() { wipe(); }

    // The bytes, valid while this lives. Named so that a reader sees each use.
    ByteView reveal() const { return bytes_; }
    bool empty() const { return bytes_.empty(); }

  private:
    void wipe() noexcept {
        volatile uint8_t* p = bytes_.data();
        for (size_t i = 0; i < bytes_.size(); ++i) p[i] = 0;
        bytes_.clear();
    }
    Bytes bytes_;
};

}  // namespace farshore

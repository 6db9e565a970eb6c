// Serialises overlapping operations on one disk, in the order in which they asked.
//
// Any thread. A holder must not ask for an overlapping range again. Operations in flight are few
// (NBD requests), so a list is searched.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>

namespace farshore {

class RangeLock {
    struct Entry {
        uint64_t from;
        uint64_t to;
    };

  public:
    class Held {
      public:
        Held(Held&& other) noexcept : lock_(other.lock_), entry_(other.entry_) {
            other.lock_ = nullptr;
        }
        Held& operator=(Held&&) = delete;
        ~Held() {
            if (lock_ != nullptr) lock_->release(entry_);
        }

      private:
        friend class RangeLock;
        Held(RangeLock* lock, std::list<Entry>::iterator entry) : lock_(lock), entry_(entry) {}
        RangeLock* lock_;
        std::list<Entry>::iterator entry_;
    };

    // Waits until no earlier operation that overlaps [offset, offset+length) is there.
    [[nodiscard]] Held acquire(uint64_t offset_bytes, uint64_t length_bytes) {
        std::unique_lock lock(mutex_);
        const auto own =
            entries_.insert(entries_.end(), Entry{offset_bytes, offset_bytes + length_bytes});
        const auto blocked = [&] {
            for (auto it = entries_.begin(); it != own; ++it)
                if (it->from < own->to && own->from < it->to) return true;
            return false;
        };
        while (blocked()) {
            ++waiting_;
            freed_.wait(lock);
            --waiting_;
        }
        return Held(this, own);
    }

  private:
    void release(std::list<Entry>::iterator entry) {
        std::lock_guard lock(mutex_);
        entries_.erase(entry);
        if (waiting_ > 0) freed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable freed_;
    std::list<Entry> entries_;
    int waiting_ = 0;
};

}  // namespace farshore

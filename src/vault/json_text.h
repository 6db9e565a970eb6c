// A JSON document written from its beginning to its end, without a tree of it in memory: for those
// that are made by the thousand, a page of items most of all. What reads or changes JSON uses
// meta/json_fields.h.
//
// Members have the order in which they are written; nobody looks for two of one name. Text that is
// not UTF-8 is replaced. For .cc files only: it pulls in a JSON library.
#pragma once

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <algorithm>
#include <concepts>
#include <string>
#include <string_view>

#include "meta/json_fields.h"

namespace farshore {

class JsonText {
  public:
    JsonText& begin() {
        writer_.StartObject();
        return *this;
    }
    JsonText& begin(std::string_view key) {
        name(key);
        return begin();
    }
    JsonText& end() {
        writer_.EndObject();
        return *this;
    }
    JsonText& begin_list(std::string_view key) {
        name(key);
        writer_.StartArray();
        return *this;
    }
    JsonText& end_list() {
        writer_.EndArray();
        return *this;
    }

    template <typename T>
    JsonText& member(std::string_view key, const T& value) {
        name(key);
        return add(value);
    }
    // What is JSON already; nobody checks that.
    JsonText& raw(std::string_view key, std::string_view json) {
        name(key);
        return add_raw(json);
    }
    JsonText& add_raw(std::string_view json) {
        // The kind matters only for what may be a member's name.
        writer_.RawValue(json.data(), json.size(), rapidjson::kObjectType);
        return *this;
    }

    JsonText& add(bool value) {
        writer_.Bool(value);
        return *this;
    }
    template <std::unsigned_integral T>
    requires(!std::same_as<T, bool>) JsonText& add(T value) {
        writer_.Uint64(value);
        return *this;
    }
    JsonText& add(std::signed_integral auto value) {
        writer_.Int64(value);
        return *this;
    }
    JsonText& add(double value) {
        writer_.Double(value);
        return *this;
    }
    JsonText& add(std::string_view text) {
        const bool plain =
            std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
        if (!plain) return add_raw(dump_json(Json(text)));
        writer_.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
        return *this;
    }
    JsonText& add(const std::string& text) { return add(std::string_view(text)); }
    JsonText& add(const char* text) { return add(std::string_view(text)); }
    JsonText& add(const Json& json) { return add_raw(dump_json(json)); }

    // The document, when it has come to its end.
    std::string text() const { return {buffer_.GetString(), buffer_.GetSize()}; }

  private:
    // Ours, and so plain.
    void name(std::string_view key) {
        writer_.Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
    }

    rapidjson::StringBuffer buffer_;
    rapidjson::Writer<rapidjson::StringBuffer> writer_{buffer_};
};

}  // namespace farshore

# What ndk-build gives to an Android.mk, with zig as the compiler: one static library of others, one shared of ours.
my-dir := $(SOURCES)
CLEAR_VARS := $(SHIM)/clear.mk
PREBUILT_STATIC_LIBRARY := $(SHIM)/prebuilt.mk
BUILD_SHARED_LIBRARY := $(SHIM)/shared.mk
all: libclassifier.so
include $(SOURCES)/Android.mk

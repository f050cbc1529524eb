# For ndk-build: libclassifier.so with the network in it. CATS is the artefact's folder.
LOCAL_PATH := $(call my-dir)

include $(CLEAR_VARS)
LOCAL_MODULE := cats
LOCAL_SRC_FILES := $(CATS)/libcats.a
LOCAL_EXPORT_C_INCLUDES := $(CATS)
include $(PREBUILT_STATIC_LIBRARY)

include $(CLEAR_VARS)
LOCAL_MODULE := classifier
LOCAL_SRC_FILES := classifier.c
LOCAL_CFLAGS := -std=c11 -Wall -Wextra -Werror
LOCAL_STATIC_LIBRARIES := cats
# Pages of 16 KB: what Android asks of libraries since version 15.
LOCAL_LDFLAGS := -Wl,-z,max-page-size=16384
include $(BUILD_SHARED_LIBRARY)

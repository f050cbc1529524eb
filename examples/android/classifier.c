/* A network of vitc behind a Java class: native methods of example.Classifier. The library is made with
 * `vitc compile m.onnx --target android-arm64 --symbol-prefix cats --out cats`, and linked as Android.mk says. */
#include <jni.h>
#include <stdint.h>

#include "cats.h"

JNIEXPORT jlong JNICALL Java_example_Classifier_open(JNIEnv *env, jclass self, jint threads) {
  (void)self;
  vitc_model *model;
  vitc_status status = cats_create(threads, &model);
  if (!status) return (jlong)(intptr_t)model;
  jclass kind = (*env)->FindClass(env, "java/lang/IllegalStateException");
  if (kind) (*env)->ThrowNew(env, kind, cats_status_text(status));
  return 0;
}

/* rgb: height x width x 3 bytes, of a model of one image a run; the logits, or null. */
JNIEXPORT jfloatArray JNICALL Java_example_Classifier_classify(JNIEnv *env, jclass self, jlong handle, jbyteArray rgb,
                                                               jint height, jint width) {
  (void)self;
  vitc_info info;
  cats_get_info(&info);
  jfloatArray logits = (*env)->NewFloatArray(env, info.classes);
  jfloatArray input = (*env)->NewFloatArray(env, 3 * info.height * info.width);
  if (!logits || !input || (int64_t)(*env)->GetArrayLength(env, rgb) != (int64_t)3 * height * width) return NULL;
  jbyte *pixels = (*env)->GetByteArrayElements(env, rgb, NULL);
  jfloat *given = (*env)->GetFloatArrayElements(env, input, NULL), *found = (*env)->GetFloatArrayElements(env, logits, NULL);
  vitc_status status = VITC_ERROR_MEMORY;
  if (pixels && given && found) status = cats_preprocess((const uint8_t *)pixels, height, width, 0, given);
  if (!status) status = cats_run((vitc_model *)(intptr_t)handle, given, found);
  if (found) (*env)->ReleaseFloatArrayElements(env, logits, found, 0);
  if (given) (*env)->ReleaseFloatArrayElements(env, input, given, JNI_ABORT);
  if (pixels) (*env)->ReleaseByteArrayElements(env, rgb, pixels, JNI_ABORT);
  return status ? NULL : logits;
}

JNIEXPORT void JNICALL Java_example_Classifier_close(JNIEnv *env, jclass self, jlong handle) {
  (void)env;
  (void)self;
  cats_destroy((vitc_model *)(intptr_t)handle);
}

package org.deixis.export;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.deixis.model.bert.Tokens;

/** A run of an exported file in ONNX Runtime, on the CPU. */
final class OnnxRun {
  private OnnxRun() {}

  /**
   * All outputs by name.
   *
   * @param image (pictures, 3, height, width)
   */
  static Map<String, float[]> outputs(Path file, float[] image, long[] imageShape, Tokens tokens) {
    OrtEnvironment env = OrtEnvironment.getEnvironment();
    long[] text = {tokens.batch(), tokens.length()};
    try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
      options.setIntraOpNumThreads(2);
      try (OrtSession session = env.createSession(file.toString(), options);
          OnnxTensor x = OnnxTensor.createTensor(env, FloatBuffer.wrap(image), imageShape);
          OnnxTensor ids = OnnxTensor.createTensor(env, longs(tokens.ids()), text);
          OnnxTensor mask = OnnxTensor.createTensor(env, longs(tokens.mask()), text);
          OrtSession.Result result =
              session.run(Map.of("image", x, "input_ids", ids, "attention_mask", mask))) {
        Map<String, float[]> outputs = new HashMap<>();
        result.forEach(
            e -> {
              FloatBuffer values = ((OnnxTensor) e.getValue()).getFloatBuffer();
              float[] copy = new float[values.remaining()];
              values.get(copy);
              outputs.put(e.getKey(), copy);
            });
        return outputs;
      }
    } catch (OrtException e) {
      throw new AssertionError(file + " does not run: " + e.getMessage(), e);
    }
  }

  private static LongBuffer longs(int[] values) {
    LongBuffer made = LongBuffer.allocate(values.length);
    for (int v : values) {
      made.put(v);
    }
    return made.flip();
  }
}

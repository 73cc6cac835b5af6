package org.deixis.export;

import java.nio.file.Path;
import org.deixis.core.DType;
import org.deixis.io.OnnxFile;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Swin-B and BERT base at 480 × 480, random weights: minutes and gigabytes, so left out unless run
 * with {@code -Dtests.excluded=gpu}. {@code -Donnx.keep=FOLDER} keeps the files.
 */
@Tag("slow")
class OnnxFullSizeTest {
  @TempDir private Path dir;

  @ParameterizedTest
  @CsvSource({
    "guide-swin-b, 13, F32, 1e-4",
    "guide-swin-b-p4, 17, F32, 1e-4",
    "guide-swin-b-p16, 13, F32, 1e-4",
    "guide-swin-b, 17, F16, 5e-3"
  })
  void onnxRuntimeAgreesWithTheEngine(String name, int opset, DType precision, double tolerance) {
    GresConfig config = GresConfig.of(name);
    String keep = System.getProperty("onnx.keep");
    Path folder = keep == null ? dir : Path.of(keep);
    Path file = folder.resolve(name + "-" + opset + "-" + precision + ".onnx");
    try (GuideModel model = OnnxExportTest.random(config, 1)) {
      long start = System.nanoTime();
      OnnxExport.write(
          model,
          file,
          new OnnxExport.Options(opset, precision, config.regions(), OnnxFile.MOST_INLINE));
      System.out.printf("%s: written in %.1f s%n", file, (System.nanoTime() - start) * 1e-9);
      OnnxExportTest.compare(model, file, 1, 1, config.regions(), tolerance);
      OnnxExportTest.compare(model, file, 3, 3, config.regions(), tolerance);
    }
  }
}

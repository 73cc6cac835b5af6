package org.deixis.export;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.io.OnnxFile;
import org.deixis.io.OnnxGraph;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.RegionGrid;

/**
 * The guide model as an ONNX file that other runtimes serve.
 *
 * <p>Inputs: {@code image} F32 (I, 3, H, W), normalised, of the size that the model was configured
 * for; {@code input_ids} and {@code attention_mask} I64 (B, T), the mask 1 for a token and 0 for
 * padding. I, B and T are free; B is a multiple of I, and expressions b·B/I and following are those
 * of picture b. Outputs, all F32 logits: {@code mask} (B, ⌈H/4⌉, ⌈W/4⌉), {@code region_probs} (B,
 * P), {@code is_negative} (B).
 */
public final class OnnxExport {
  /** Versions of the operators that can be asked for. */
  public static final List<Integer> OPSETS = List.of(13, 17);

  private static final String PICTURES = "pictures";
  private static final String EXPRESSIONS = "expressions";

  /**
   * What to write.
   *
   * @param opset 13, or 17, which has LayerNormalization as one operator
   * @param precision F32, or F16 for weights and what is computed from them; inputs, outputs, norms
   *     and softmax are F32 either way
   * @param regions P: as configured, or of an adaptive model 4, 8 or 16
   * @param mostInline bytes of weights above which they go to a file of their own
   */
  public record Options(int opset, DType precision, int regions, long mostInline) {
    public Options {
      if (!OPSETS.contains(opset)) {
        throw new InputException("opset " + opset + ": give 13 or 17");
      }
      if (precision != DType.F32 && precision != DType.F16) {
        throw new InputException("precision " + precision + ": give fp32 or fp16");
      }
      if (mostInline < 0 || mostInline > OnnxFile.MOST_INLINE) {
        throw new InputException(
            "%d bytes of weights within the model: give 0 to %d, as the format ends at 2 GiB"
                .formatted(mostInline, OnnxFile.MOST_INLINE));
      }
    }

    /** Opset 13, fp32, the configured regions. */
    public static Options of(GresConfig config) {
      return new Options(13, DType.F32, config.regions(), OnnxFile.MOST_INLINE);
    }
  }

  private OnnxExport() {}

  /**
   * Writes the model.
   *
   * @return the files: the model, and FILE.data where the weights did not fit into it
   * @throws InputException when options do not fit the model, a weight does not fit fp16, or a file
   *     cannot be written
   */
  public static List<Path> write(GuideModel model, Path file, Options options) {
    GresConfig c = model.config();
    int p = options.regions;
    if (p != c.regions() && !(c.adaptive() && p >= 1 && p <= c.queries())) {
      throw new InputException(
          "%d regions asked of a model of %d; only adaptive models can choose"
              .formatted(p, c.regions()));
    }
    RegionGrid.of(p);
    OnnxGraph graph = new OnnxGraph("deixis", options.opset);
    String image = graph.input("image", DType.F32, PICTURES, 3, c.imageHeight(), c.imageWidth());
    String ids = graph.input("input_ids", DType.I64, EXPRESSIONS, "tokens");
    String mask = graph.input("attention_mask", DType.I64, EXPRESSIONS, "tokens");
    Layers layers = new Layers(graph, model.parameters(), options.precision);
    GuideLayers.Outputs found = new GuideLayers(layers, c, p).outputs(image, ids, mask);
    graph.output(found.mask(), "mask", DType.F32, EXPRESSIONS, found.height(), found.width());
    graph.output(found.regions(), "region_probs", DType.F32, EXPRESSIONS, p);
    graph.output(found.negative(), "is_negative", DType.F32, EXPRESSIONS);
    return OnnxFile.write(graph, file, metadata(c, p), options.mostInline);
  }

  /** What whoever prepares the inputs must know. */
  private static Map<String, String> metadata(GresConfig c, int regions) {
    RegionGrid grid = RegionGrid.of(regions);
    Map<String, String> known = new LinkedHashMap<>();
    known.put("max_tokens", Integer.toString(c.maxTokens()));
    known.put("pad_id", Integer.toString(c.text().padId()));
    known.put("region_grid", Shape.of(grid.rows(), grid.columns()).toString());
    return known;
  }
}

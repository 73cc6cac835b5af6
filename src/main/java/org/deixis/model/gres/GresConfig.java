package org.deixis.model.gres;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;

/**
 * The guide model's {@code config.json}. Keys that are left out have the values of {@link
 * #DEFAULT}; a key that does not exist is an error.
 *
 * @param imageHeight rows that pictures are resized to, in pixels; Swin's windows are made for it
 * @param imageWidth columns that pictures are resized to
 * @param swin the picture encoder
 * @param text the text encoder
 * @param dim width of pyramid, words and regions (D)
 * @param maskDim width of the mask features (Dm)
 * @param regions number of region queries (P): 4, 8, 16 or 100
 * @param adaptive whether a batch may be run with 4, 8 or 16 regions; the model then has 16
 *     queries, of which it uses the first ones, and {@code regions} is the number where nobody
 *     chooses
 * @param layers stacked region-image and region-language attentions
 * @param heads attention heads of the language attentions
 * @param fusionLevels pyramid levels whose pixels attend to the words, 0 (stride 4) to 3
 * @param normGroups groups of the mask features' norm
 * @param maxTokens longest phrase in tokens, special ones included
 * @param maskEvidence whether the no-target logit also has a learnt multiple of the highest mask
 *     logit; false in the guide
 */
public record GresConfig(
    int imageHeight,
    int imageWidth,
    SwinConfig swin,
    TextConfig text,
    int dim,
    int maskDim,
    int regions,
    boolean adaptive,
    int layers,
    int heads,
    List<Integer> fusionLevels,
    int normGroups,
    int maxTokens,
    boolean maskEvidence) {

  /** Swin-B of window 7 and BERT base: the full configuration. */
  public static final GresConfig DEFAULT =
      new GresConfig(
          480,
          480,
          new SwinConfig(
              128, List.of(2, 2, 18, 2), List.of(4, 8, 16, 32), 7, WindowRule.SHRINK, 0, false),
          new TextConfig(TextConfig.Kind.BERT, 30_522, 768, 12, 12, 3072, 512, 2, 0, 1e-12, 0),
          512,
          256,
          8,
          false,
          3,
          8,
          List.of(0, 1, 2),
          32,
          40,
          false);

  /** Queries of a model with adaptive regions. */
  public static final int MOST_ADAPTIVE = 16;

  private static final List<String> BUNDLED =
      List.of(
          "guide-swin-b",
          "guide-swin-b-p4",
          "guide-swin-b-p16",
          "guide-swin-b-adaptive",
          "guide-swin-t",
          "guide-swin-t-p4",
          "guide-swin-t-p16",
          "small");

  private static final long MOST_BYTES = 1 << 20;

  public GresConfig {
    fusionLevels = List.copyOf(fusionLevels);
    check(side(imageHeight) && side(imageWidth), "imageHeight, imageWidth: give 32 to 4096");
    check(swin.stages() == 4, "swin.depths " + swin.depths() + ": the pyramid needs 4 stages");
    check(dim >= 1 && dim <= 8192, "dim " + dim + ": give 1 to 8192");
    check(maskDim >= 1 && maskDim <= 8192, "maskDim " + maskDim + ": give 1 to 8192");
    RegionGrid.of(regions);
    check(
        !adaptive || regions <= MOST_ADAPTIVE,
        "regions " + regions + ": adaptive models have at most " + MOST_ADAPTIVE);
    check(layers >= 1 && layers <= 64, "layers " + layers + ": give 1 to 64");
    check(
        heads >= 1 && dim % heads == 0,
        "heads " + heads + ": they must divide the width dim = " + dim);
    check(
        fusionLevels.stream().allMatch(l -> l >= 0 && l < 4)
            && fusionLevels.stream().distinct().count() == fusionLevels.size(),
        "fusionLevels " + fusionLevels + ": give different levels of 0 to 3");
    check(
        normGroups >= 1 && maskDim % normGroups == 0,
        "normGroups " + normGroups + ": they must divide maskDim = " + maskDim);
    check(
        maxTokens >= 3 && maxTokens <= text.maxTokens(),
        "maxTokens " + maxTokens + ": give 3 to " + text.maxTokens());
  }

  private static boolean side(int pixels) {
    return pixels >= 32 && pixels <= 4096;
  }

  private static void check(boolean ok, String message) {
    if (!ok) {
      throw new InputException(message);
    }
  }

  /** Rows of the region queries' parameter. */
  public int queries() {
    return adaptive ? MOST_ADAPTIVE : regions;
  }

  /** Names of the configurations that come with the program. */
  public static List<String> bundled() {
    return BUNDLED;
  }

  /**
   * A bundled configuration by name, or one from a file.
   *
   * @throws InputException when there is neither, or the file is damaged
   */
  public static GresConfig of(String nameOrFile) {
    if (BUNDLED.contains(nameOrFile)) {
      String resource = "/configs/" + nameOrFile + ".json";
      try (InputStream in = GresConfig.class.getResourceAsStream(resource)) {
        if (in == null) {
          throw new IllegalStateException("the program comes without " + resource);
        }
        return parse(nameOrFile, in.readAllBytes());
      } catch (IOException e) {
        throw new IllegalStateException("cannot read " + resource, e);
      }
    }
    Path file = Path.of(nameOrFile);
    if (Files.isRegularFile(file)) {
      return load(file);
    }
    throw new InputException(
        "no configuration '%s': give a file, or one of %s (nearest: %s)"
            .formatted(
                nameOrFile, String.join(", ", BUNDLED), JsonRecord.nearest(nameOrFile, BUNDLED)));
  }

  /** Reads a {@code config.json}. */
  public static GresConfig load(Path file) {
    try {
      if (Files.size(file) > MOST_BYTES) {
        throw new InputException(file + ": too large for a configuration");
      }
      return parse(file.toString(), Files.readAllBytes(file));
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }

  /**
   * Parses JSON.
   *
   * @param where the file's name, for messages
   */
  public static GresConfig parse(String where, byte[] json) {
    return JsonRecord.read(where, json, DEFAULT);
  }

  /** The whole configuration as indented JSON. */
  public byte[] toJson() {
    return JsonRecord.write(this);
  }

  /** This configuration with another vocabulary. */
  public GresConfig withVocab(int vocab, int padId) {
    return with(swin, text.withVocab(vocab, padId), adaptive);
  }

  /** This configuration with Swin's stages computed again in backward, or not. */
  public GresConfig withCheckpointing(boolean wanted) {
    return with(swin.withCheckpointing(wanted), text, adaptive);
  }

  /** This configuration with regions chosen for each batch, or not. */
  public GresConfig withAdaptive(boolean wanted) {
    return with(swin, text, wanted);
  }

  /** This configuration for pictures of another size, with another Swin. */
  public GresConfig withPictures(int height, int width, SwinConfig newSwin) {
    return new GresConfig(
        height,
        width,
        newSwin,
        text,
        dim,
        maskDim,
        regions,
        adaptive,
        layers,
        heads,
        fusionLevels,
        normGroups,
        maxTokens,
        maskEvidence);
  }

  private GresConfig with(SwinConfig newSwin, TextConfig newText, boolean newAdaptive) {
    return new GresConfig(
        imageHeight,
        imageWidth,
        newSwin,
        newText,
        dim,
        maskDim,
        regions,
        newAdaptive,
        layers,
        heads,
        fusionLevels,
        normGroups,
        maxTokens,
        maskEvidence);
  }

  /** The tree of the same content, for files that hold more than the model. */
  public JsonNode toTree() {
    return new ObjectMapper().valueToTree(this);
  }
}

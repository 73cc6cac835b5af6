package org.deixis.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.export.OnnxExport;
import org.deixis.export.WeightsExport;
import org.deixis.infer.ModelFolder;
import org.deixis.io.OnnxFile;
import org.deixis.model.gres.GuideModel;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

@Command(
    name = "export",
    description =
        "Writes a model for other runtimes: the whole model as ONNX, or its weights as safetensors or NumPy's npz.",
    footer = {
      "",
      "  deixis export --model runs/demo/model --format onnx --precision fp16 --out deixis.onnx",
      "",
      "docs/onnx.md says what goes in and what comes out."
    })
final class ExportCommand extends BaseCommand {
  private enum Format {
    ONNX,
    SAFETENSORS,
    NPZ
  }

  @Option(names = "--model", paramLabel = "DIR", required = true, description = "Model folder.")
  private Path model;

  @Option(
      names = "--format",
      paramLabel = "NAME",
      required = true,
      description = "onnx, safetensors or npz.")
  private Format format;

  @Option(
      names = "--out",
      paramLabel = "FILE",
      required = true,
      description = "File to write; an old one is replaced once the new one is whole.")
  private Path file;

  @Option(
      names = "--opset",
      paramLabel = "N",
      description = "onnx: version of the operators, 13 or 17 (LayerNormalization). Default: 13.")
  private Integer opset;

  @Option(
      names = "--precision",
      paramLabel = "P",
      description = "onnx: fp32 or fp16; inputs and outputs are fp32 either way. Default: fp32.")
  private String precision;

  @Option(
      names = "--regions",
      paramLabel = "P",
      description = "onnx: regions of an adaptive model, 4, 8 or 16. Default: as configured.")
  private Integer regions;

  @Option(
      names = "--inline-bytes",
      paramLabel = "N",
      description = {
        "onnx: weights of more bytes than this go to a file FILE.data.",
        "Default: " + OnnxFile.MOST_INLINE + ", the most that the format allows."
      })
  private Long inline;

  @Override
  public Integer call() {
    if (format != Format.ONNX) {
      onnxOnly("--opset", opset);
      onnxOnly("--precision", precision);
      onnxOnly("--regions", regions);
      onnxOnly("--inline-bytes", inline);
    }
    if (Files.isDirectory(file)) {
      throw new InputException("--out: " + file + " is a folder; give the name of a file");
    }
    DType dtype = dtype();
    if (opset != null && !OnnxExport.OPSETS.contains(opset)) {
      throw new InputException("--opset: " + opset + " is not there; give 13 or 17");
    }
    // Nothing is computed, so that the backend that is always there will do.
    try (ModelFolder folder = ModelFolder.load(model, Backends.get("reference"))) {
      for (Path written : write(folder.model(), dtype)) {
        out.printf(Locale.ROOT, "%s  %,d bytes%n", written, Files.size(written));
      }
    } catch (IOException e) {
      throw new InputException("cannot read back " + file + ": " + Reason.of(e), e);
    }
    return 0;
  }

  private void onnxOnly(String option, Object given) {
    if (given != null) {
      throw new InputException(option + ": only --format onnx has it; leave it out");
    }
  }

  private DType dtype() {
    if (precision == null || precision.equalsIgnoreCase("fp32")) {
      return DType.F32;
    }
    if (precision.equalsIgnoreCase("fp16")) {
      return DType.F16;
    }
    throw new InputException("--precision: '" + precision + "' is unknown; give fp32 or fp16");
  }

  private List<Path> write(GuideModel guide, DType dtype) {
    switch (format) {
      case SAFETENSORS -> WeightsExport.safetensors(guide, file);
      case NPZ -> WeightsExport.npz(guide, file);
      case ONNX -> {
        OnnxExport.Options plain = OnnxExport.Options.of(guide.config());
        return OnnxExport.write(
            guide,
            file,
            new OnnxExport.Options(
                opset == null ? plain.opset() : opset,
                dtype,
                regions == null ? plain.regions() : regions,
                inline == null ? plain.mostInline() : inline));
      }
    }
    return List.of(file);
  }
}
